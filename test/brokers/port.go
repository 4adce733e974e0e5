package brokers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync/atomic"
	"testing"
)

// freePort returns a loopback port that nothing listens on.
//
// It stays below the range from which the kernel takes the ports of outgoing
// connections. A port from that range can be taken by any client while its
// broker is down; a client that dials it meanwhile can even connect to itself.
//
// Test programs run side by side, and a port is free until somebody uses it: so
// each program has a range of its own, by its process id, and never gives a
// port twice until the range is used up. Two that have one range all the same
// begin at different places in it.
func freePort() (int, error) {
	const low, high, size = 10_000, 32_000, 200
	const ranges = (high - low) / size
	first, offset := low+os.Getpid()%ranges*size, os.Getpid()/ranges*53
	for range size {
		port := first + (offset+int(given.Add(1)))%size
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

var given atomic.Int64 //nolint:gochecknoglobals // ports are the machine's, so what counts them is the program's

// FreeAddress returns a loopback address, host:port, at which nothing listens,
// and which no other test program that runs now is given.
func FreeAddress(t testing.TB) string {
	t.Helper()
	port, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	return loopback(port)
}

func loopback(port int) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}
