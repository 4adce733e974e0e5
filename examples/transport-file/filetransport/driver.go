// Package filetransport is a transport whose broker is a folder. A sink appends each message to a file as a line, and
// confirms it when it is on the disk. A source follows a file and remembers, in the folder's .flogate, which lines are
// acknowledged, so that it goes on where it has stopped.
//
// It is meant to be read by authors of transports: everything that a driver has to do is here, and little else.
package filetransport

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/flogate/flogate/core/transport"
)

// New returns the driver. The log is not needed by so simple a thing.
func New(*slog.Logger) transport.Driver { return driver{} }

type driver struct{}

// config is the body of a broker block, as the schema of Describe has it.
type config struct {
	Directory string `json:"directory"`
	Format    string `json:"format"`
}

// Describe implements [transport.Driver].
func (driver) Describe(context.Context) (transport.Description, error) {
	return transport.Description{
		Name:    "file",
		Version: "1.0.0",
		Summary: "Lines of files in a folder.",
		Schemes: []string{"file"},
		Config: transport.Schema{Attributes: []transport.Attribute{
			{Name: "directory", Type: transport.String, Required: true, Doc: "The folder. Addresses are names of files in it."},
			{
				Name: "format", Type: transport.String, Default: "text", OneOf: []string{"text", "json"},
				Doc: "What a line is: text is the body alone, which then has no line breaks; json is the whole message.",
			},
		}},
	}, nil
}

// Validate implements [transport.Driver].
func (driver) Validate(_ context.Context, req transport.ValidateRequest) (transport.ValidateResult, error) {
	var r transport.ValidateResult
	problem := func(where transport.Part, i int, path, message string) {
		r.Problems = append(r.Problems, transport.Problem{Where: where, Index: i, Path: []string{path}, Message: message})
	}
	var c config
	if req.Config != nil {
		if err := json.Unmarshal(req.Config, &c); err != nil || c.Directory == "" {
			problem(transport.InConfig, 0, "directory", "The folder is missing: directory = \"spool\".")
		}
	}
	traits := func(where transport.Part, i int, address string, options json.RawMessage) transport.Traits {
		if err := noOptions(options); err != nil {
			r.Problems = append(r.Problems, transport.Problem{Where: where, Index: i, Message: err.Error()})
		}
		if !filepath.IsLocal(address) || hidden(address) {
			problem(where, i, "address", fmt.Sprintf("%q is not the name of a file in the folder.", address))
		}
		return transport.Traits{Place: "file:" + filepath.Clean(address), Headerless: c.Format != "json"}
	}
	for i, s := range req.Sources {
		t := traits(transport.InSource, i, s.Address, s.Options)
		t.Acks = true
		r.Sources = append(r.Sources, t)
	}
	for i, s := range req.Sinks {
		address := s.Address
		if address == "" {
			address = "." // each message brings its own
		}
		t := traits(transport.InSink, i, address, s.Options)
		t.Confirms = true
		r.Sinks = append(r.Sinks, t)
	}
	return r, nil
}

// noOptions returns an error for options: sources and sinks have none.
func noOptions(options json.RawMessage) error {
	if options == nil {
		return nil
	}
	var none map[string]any
	if err := json.Unmarshal(options, &none); err != nil {
		return transport.Permanent(fmt.Errorf("options: %w", err))
	}
	if len(none) > 0 {
		return transport.Permanentf("a file has no options")
	}
	return nil
}

// hidden reports whether an address is in the folder of our own state.
func hidden(address string) bool {
	return strings.HasPrefix(filepath.Clean(address)+string(filepath.Separator), stateDir+string(filepath.Separator))
}

// Connect implements [transport.Driver].
func (driver) Connect(ctx context.Context, req transport.ConnectRequest) (transport.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var c config
	if err := json.Unmarshal(req.Config, &c); err != nil {
		return nil, transport.Permanent(fmt.Errorf("configuration: %w", err))
	}
	// The root keeps addresses from leading out of the folder, also through links.
	root, err := os.OpenRoot(c.Directory)
	if errors.Is(err, os.ErrPermission) {
		return nil, transport.Permanent(err)
	}
	if err != nil {
		return nil, err // it may be mounted, or made, later
	}
	format, ok := formats[c.Format]
	if !ok {
		_ = root.Close()
		return nil, transport.Permanentf("format %q is neither text nor json", c.Format)
	}
	return &conn{name: req.Name, root: root, format: format, closed: make(chan struct{}), parts: map[part]struct{}{}}, nil
}

// conn is a folder that is open.
type conn struct {
	name   string
	root   *os.Root
	format format
	closed chan struct{}

	mu    sync.Mutex
	ended bool
	parts map[part]struct{}
}

// part is a subscription or a publisher.
type part interface {
	// end stops it, and returns when no goroutine of it is left.
	end(reason error)
}

// Info implements [transport.Conn].
func (c *conn) Info() transport.ConnInfo { return transport.ConnInfo{Product: "files"} }

// Next implements [transport.Conn]. A folder has no conditions, and is not lost.
func (c *conn) Next(ctx context.Context) (transport.Condition, error) {
	select {
	case <-c.closed:
		return transport.Condition{}, transport.ErrClosed
	case <-ctx.Done():
		return transport.Condition{}, ctx.Err()
	}
}

func (c *conn) add(p part) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return transport.ErrClosed
	}
	c.parts[p] = struct{}{}
	return nil
}

func (c *conn) remove(p part) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.parts, p)
}

// Close implements [transport.Conn].
func (c *conn) Close(context.Context) error {
	c.mu.Lock()
	first := !c.ended
	c.ended = true
	parts := c.parts
	c.parts = map[part]struct{}{}
	c.mu.Unlock()
	for p := range parts {
		p.end(transport.ErrClosed)
	}
	if !first {
		return nil
	}
	close(c.closed)
	return c.root.Close()
}
