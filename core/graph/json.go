package graph

import "errors"

type jsonText struct{}

// ParseJSON reads a graph in FBP JSON. The file's name is for errors only. A returned error is an Errors.
func ParseJSON(file string, src []byte, opts ...Option) (*Graph, error) {
	return nil, errors.ErrUnsupported
}

// JSON returns the graph in FBP JSON.
func (g *Graph) JSON() ([]byte, error) { return nil, errors.ErrUnsupported }
