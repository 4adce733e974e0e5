package brokers

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

// freePort returns a loopback port that nothing listens on.
//
// It stays below the range from which the kernel takes the ports of outgoing
// connections. A port from that range can be taken by any client while its
// broker is down; a client that dials it meanwhile can even connect to itself.
func freePort() (int, error) {
	const low, high = 10_000, 32_000
	for range 1000 {
		port := low + rand.IntN(high-low)
		l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", loopback(port))
		if err != nil {
			continue
		}
		if err := l.Close(); err != nil {
			return 0, fmt.Errorf("probe port %d: %w", port, err)
		}
		return port, nil
	}
	return 0, errors.New("no free loopback port found")
}

func loopback(port int) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}
