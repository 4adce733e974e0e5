package forwarding

import (
	"fmt"
	"path"
	"slices"

	"github.com/flogate/flogate/forwarding/fbp"
)

// Access is what a client may do, and who it is to those who look at the log of changes. The zero Access is of a client that
// may do nothing but ask for the runtime.
type Access struct {
	// Name is what the site calls whoever has the secret; Client is from where it has connected. Both are for logs.
	Name, Client string
	Capabilities fbp.Capabilities
	// Graphs are patterns, as of path.Match, of the graphs that it may see: "main", "flogate/*". None means all of them.
	Graphs []string
}

// Sees reports whether the graph may be shown to the client. A pattern that is none matches nothing.
func (a Access) Sees(graph string) bool {
	return len(a.Graphs) == 0 || slices.ContainsFunc(a.Graphs, func(pattern string) bool {
		ok, err := path.Match(pattern, graph)
		return ok && err == nil
	})
}

// Who returns the name by which changes are logged: "control from 192.0.2.7:40000".
func (a Access) Who() string {
	switch {
	case a.Client == "":
		return a.Name
	case a.Name == "":
		return a.Client
	}
	return a.Name + " from " + a.Client
}

func (a Access) equal(o Access) bool {
	return a.Name == o.Name && a.Client == o.Client &&
		slices.Equal(a.Capabilities, o.Capabilities) && slices.Equal(a.Graphs, o.Graphs)
}

// Grant is what whoever shows a secret may do.
type Grant struct {
	Secret fbp.Secret
	Access Access
}

// Policy says who may do what.
//
// Anonymous is what a client may do that shows no secret, or one that is in no grant. It is meant to be zero as soon as there
// is a grant. A gateway without any secret may give all to Anonymous where only its own machine can reach the listener, which
// is how people try it out; on any other listener whoever reaches the port could start programs, so there it must be zero too.
type Policy struct {
	Grants    []Grant
	Anonymous Access
}

// Access returns what a client with that secret may do. How long it takes tells nothing about the secrets.
func (p Policy) Access(secret fbp.Secret) Access {
	access := p.Anonymous
	for _, g := range p.Grants {
		if g.Secret.Equal(secret) && !g.Secret.IsZero() {
			access = g.Access
		}
	}
	return access
}

// Levels are the names under which a site gives capabilities, from the least to the most.
func Levels() []string { return []string{"read-only", "edit", "control", "source"} }

// Capabilities returns what a site gives with levels: each is what it says, and to look on. "edit" is to change graphs;
// "control" is to start and stop them, to send packets into them and to record what passes; "source" is to change the programs
// that nodes run. All of them together are all capabilities. No level is nothing at all.
func Capabilities(levels ...string) (fbp.Capabilities, error) {
	given := map[fbp.Capability]bool{}
	give := func(some ...fbp.Capability) {
		for _, one := range some {
			given[one] = true
		}
	}
	for _, level := range levels {
		give(fbp.CapGraphReadonly, fbp.CapProtocolComponent, fbp.CapComponentGetSource, fbp.CapNetworkStatus, fbp.CapNetworkData)
		switch level {
		case "read-only":
		case "edit":
			give(fbp.CapProtocolGraph, fbp.CapNetworkPersist)
		case "control":
			give(fbp.CapNetworkControl, fbp.CapProtocolNetwork, fbp.CapProtocolRuntime, fbp.CapProtocolTrace)
		case "source":
			give(fbp.CapComponentSetSource)
		default:
			return nil, fmt.Errorf("%q is none of the levels %q", level, Levels())
		}
	}
	return slices.DeleteFunc(fbp.AllCapabilities(), func(one fbp.Capability) bool { return !given[one] }), nil
}
