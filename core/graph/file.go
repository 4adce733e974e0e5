package graph

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// MaxSize is the largest text of a graph that is read, in bytes.
const MaxSize = 16 << 20

// Option changes how a text is read.
type Option func(*options)

type options struct{ caseSensitive bool }

// CaseSensitive keeps the case of port names. The default folds them to lower case, as all FBP tools do. FBP JSON has its
// own "caseSensitive" key, which this overrides when it says false.
func CaseSensitive() Option { return func(o *options) { o.caseSensitive = true } }

func (o options) with(opts []Option) options {
	for _, opt := range opts {
		opt(&o)
	}
	return o
}

// Load reads a graph from a file: FBP JSON if its name ends in .json, else the .fbp language.
func Load(path string, opts ...Option) (*Graph, error) {
	src, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("load graph: %w", err)
	}
	return Parse(path, src, opts...)
}

// Parse reads a graph from the contents of the file that is named: FBP JSON if its name ends in .json, else the .fbp
// language. The name also stands in errors.
func Parse(file string, src []byte, opts ...Option) (*Graph, error) {
	if strings.EqualFold(filepath.Ext(file), ".json") {
		return ParseJSON(file, src, opts...)
	}
	return ParseFBP(file, src, opts...)
}
