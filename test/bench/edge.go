package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// kind is what one end of an edge is.
type kind string

const (
	mqtt0     kind = "mqtt0"
	mqtt1     kind = "mqtt1"
	amqpQueue kind = "amqp"
	jetStream kind = "jetstream"
	natsCore  kind = "nats"
)

func (k kind) String() string {
	switch k {
	case mqtt0:
		return "MQTT QoS 0"
	case mqtt1:
		return "MQTT QoS 1"
	case amqpQueue:
		return "AMQP"
	case jetStream:
		return "JetStream"
	}
	return "NATS"
}

// edge is what is compared: messages from one kind of place to another.
type edge struct{ from, to kind }

func (e edge) name() string   { return string(e.from + "-" + e.to) }
func (e edge) String() string { return e.from.String() + " → " + e.to.String() }

func allEdges() []edge {
	return []edge{
		{mqtt0, mqtt0},
		{mqtt1, mqtt1},
		{mqtt1, amqpQueue},
		{amqpQueue, mqtt1},
		{amqpQueue, amqpQueue},
		{jetStream, amqpQueue},
		{natsCore, mqtt0},
	}
}

// variant is who carries the messages.
type variant string

const (
	hand      variant = "hand"      // hand-written, in one process, the client libraries as they are
	coalesced variant = "coalesced" // the same over core/coalesce
	none      variant = "none"      // flogate with isolation = "none"
	processes variant = "processes" // flogate with a process for each transport
)

func allVariants() []variant { return []variant{hand, coalesced, none, processes} }

func (v variant) String() string {
	switch v {
	case hand:
		return "hand-written"
	case coalesced:
		return "+coalesced"
	case none:
		return `isolation = "none"`
	}
	return string(v)
}

// cell is one measurement's place in the table.
type cell struct {
	edge edge
	size int // bytes of a body
	rate int // messages a second, 0 for as many as pass
}

func (c cell) String() string { return c.edge.name() + " " + sizeName(c.size) + " " + rateName(c.rate) }

func sizeName(size int) string {
	if size >= 1<<10 && size%(1<<10) == 0 {
		return strconv.Itoa(size>>10) + " KiB"
	}
	return strconv.Itoa(size) + " B"
}

func rateName(rate int) string {
	if rate == 0 {
		return "saturated"
	}
	return strconv.Itoa(rate) + "/s"
}

// choose returns those of all that a comma-separated list names; "all" names all.
func choose[T any](list string, all []T, name func(T) string) ([]T, error) {
	if list == "all" {
		return all, nil
	}
	var chosen []T
	for want := range strings.SplitSeq(list, ",") {
		i := slices.IndexFunc(all, func(t T) bool { return name(t) == strings.TrimSpace(want) })
		if i < 0 {
			names := make([]string, len(all))
			for i := range all {
				names[i] = name(all[i])
			}
			return nil, fmt.Errorf("%q is none of %s", want, strings.Join(names, ", "))
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}

// numbers reads a comma-separated list of numbers; zero is another word for 0.
func numbers(list, zero string) ([]int, error) {
	var ns []int
	for word := range strings.SplitSeq(list, ",") {
		if word = strings.TrimSpace(word); word == zero && zero != "" {
			ns = append(ns, 0)
			continue
		}
		n, err := strconv.Atoi(word)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("%q is no number of 1 or more", word)
		}
		ns = append(ns, n)
	}
	return ns, nil
}
