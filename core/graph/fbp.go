package graph

import "errors"

type fbpText struct{}

// ParseFBP reads a graph in the .fbp language. The file's name is for errors only. A returned error is an Errors.
func ParseFBP(file string, src []byte, opts ...Option) (*Graph, error) {
	return nil, errors.ErrUnsupported
}

// FBP returns the graph in the .fbp language.
func (g *Graph) FBP() ([]byte, error) { return nil, errors.ErrUnsupported }

// LostInFBP names what FBP leaves out.
func (g *Graph) LostInFBP() []string { return nil }
