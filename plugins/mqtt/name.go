package mqtt

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"strings"
)

const (
	// idLength and the characters of an id are what every MQTT 3.1.1 server has to accept.
	idLength = 23
	// idHash is the length of the part that tells ids apart: 65 bits.
	idHash = 13
)

// publisherID is the id of a client that leaves nothing behind. It is new each time, so that a second program with the
// same site file does not throw out the first.
func publisherID(prefix, name string) string {
	return clientID(prefix, name, strings.ToLower(rand.Text()[:idHash]))
}

// subscriberID is the id under which the broker keeps the session of a subscription: the same whenever both names are.
// The address is no part of it, so that [transport.Subscription.Remove] finds the session of whatever it was.
func subscriberID(prefix, name, source string) string {
	sum := sha256.Sum256([]byte(name + "\x00" + source))
	return clientID(prefix, source, strings.ToLower(base32.StdEncoding.EncodeToString(sum[:]))[:idHash])
}

// clientID begins with something that people recognise: the prefix that they set, or what is fit of the name.
func clientID(prefix, name, unique string) string {
	if prefix != "" {
		return prefix + "-" + unique
	}
	readable := strings.Map(func(r rune) rune {
		if '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' {
			return r
		}
		return -1
	}, name)
	return readable[:min(len(readable), idLength-idHash)] + unique
}
