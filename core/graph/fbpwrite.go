package graph

import "errors"

// FBP returns the graph in the .fbp language.
func (g *Graph) FBP() ([]byte, error) { return nil, errors.ErrUnsupported }

// LostInFBP names what FBP leaves out.
func (g *Graph) LostInFBP() []string { return nil }
