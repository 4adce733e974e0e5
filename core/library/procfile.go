package library

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/flogate/flogate/core/graph"
	"github.com/flogate/flogate/core/route"
)

// Node is a role that a component plays.
type Node struct {
	Role      string
	Component string
	// IIPs are the initial packets, as an object by port; nil if there are none.
	IIPs json.RawMessage
}

// Nodes returns the roles of a graph, with their initial packets, in the graph's order. Nodes that only say how messages
// are shared out are no roles.
func Nodes(g *graph.Graph) ([]Node, error) {
	iips := map[string]map[string]json.RawMessage{}
	for _, i := range g.Initials {
		if iips[i.Tgt.Node] == nil {
			iips[i.Tgt.Node] = map[string]json.RawMessage{}
		}
		iips[i.Tgt.Node][i.Tgt.Port] = i.Data
	}
	var nodes []Node
	for _, n := range g.Nodes {
		if route.IsRelay(n.Component) {
			continue
		}
		node := Node{Role: n.ID, Component: n.Component}
		if byPort := iips[n.ID]; byPort != nil {
			data, err := json.Marshal(byPort)
			if err != nil {
				return nil, fmt.Errorf("initial packets of node %q: %w", n.ID, err)
			}
			node.IIPs = data
		}
		nodes = append(nodes, node)
	}
	return nodes, nil
}

// Procfile returns lines "role: command" for foreman, Heroku and their like, which run each command in a shell: what the
// templates say to a shell is said to it, and values are quoted. without are the roles whose component is unknown or has no
// command. An error is about a role or a template that cannot be in such a file.
func (l *Library) Procfile(nodes []Node) (text string, without []string, err error) {
	var b strings.Builder
	for _, n := range nodes {
		e, values, err := l.instance(n.Component, n.Role, n.IIPs)
		if errors.Is(err, ErrUnknown) || errors.Is(err, ErrNoCommand) {
			without = append(without, n.Role)
			continue
		}
		if err != nil {
			return "", nil, err
		}
		// Foreman passes over other lines without a word.
		if strings.Trim(n.Role, alphanumeric+"_-") != "" {
			return "", nil, fmt.Errorf("role %q cannot be in a Procfile: it may have letters, digits, _ and -", n.Role)
		}
		line := e.template.script(values)
		if strings.ContainsAny(line, "\r\n") {
			return "", nil, fmt.Errorf("component %q: a command of several lines cannot be in a Procfile", e.Name)
		}
		fmt.Fprintf(&b, "%s: %s\n", n.Role, line)
	}
	return b.String(), without, nil
}
