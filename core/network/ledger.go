package network

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/flogate/flogate/core/atomicfile"
	"github.com/flogate/flogate/core/broker"
	"github.com/flogate/flogate/core/transport"
)

// ledger is what was bound on brokers, and for whom: what nobody wants any more is taken back, and nothing else. It is kept in
// a file, because an edge may be removed while nobody runs. What is there is noted before it is bound.
type ledger struct {
	made  map[binding]*madeBinding
	dirty bool

	saving  sync.Mutex
	failing bool // saving: it could not be written last
}

// binding is a binding on a broker.
type binding struct {
	Broker string
	transport.Binding
}

// madeBinding is what is known of a binding.
type madeBinding struct {
	ways   [][]string // the sets of edges that want it, or wanted it last
	gone   bool       // nobody does
	failed error      // why it was not taken back
	retry  broker.Retry
	next   time.Time
}

// entry is a binding as the file has it.
type entry struct {
	Broker string     `json:"broker"`
	From   filePlace  `json:"from"`
	To     filePlace  `json:"to"`
	Key    string     `json:"key,omitempty"`
	Edges  [][]string `json:"edges"`
}

type filePlace struct {
	Kind    string `json:"kind"`
	Address string `json:"address"`
}

// kinds are the names of kinds of places in the file.
func kinds() map[transport.PlaceKind]string {
	return map[transport.PlaceKind]string{
		transport.Queue: "queue", transport.Fanout: "fanout", transport.Direct: "direct", transport.Topic: "topic",
	}
}

func (p filePlace) place() (transport.Place, error) {
	for kind, name := range kinds() {
		if name == p.Kind {
			return transport.Place{Kind: kind, Address: p.Address}, nil
		}
	}
	return transport.Place{}, fmt.Errorf("no kind of place is %q", p.Kind)
}

// load reads the file. One that cannot be read is set aside.
func (n *Network) load() {
	if n.cfg.Bindings == "" {
		return
	}
	made, err := readLedger(n.cfg.Bindings)
	if err != nil {
		aside := n.cfg.Bindings + ".unreadable"
		n.cfg.Log.Error("bindings of an earlier run are not known", "file", n.cfg.Bindings, "kept_as", aside, "error", err,
			"renamed", os.Rename(n.cfg.Bindings, aside) == nil)
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ledger.made = made
}

func readLedger(path string) (map[binding]*madeBinding, error) {
	made := make(map[binding]*madeBinding)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return made, nil
	}
	if err != nil {
		return nil, err
	}
	var entries []entry
	if err := json.Unmarshal(text, &entries); err != nil {
		return nil, err
	}
	for _, e := range entries {
		from, err := e.From.place()
		to, err2 := e.To.place()
		if err := errors.Join(err, err2); err != nil {
			return nil, err
		}
		made[binding{e.Broker, transport.Binding{From: from, To: to, Key: e.Key}}] = &madeBinding{ways: e.Edges}
	}
	return made, nil
}

// save writes the file, if something has changed. That it cannot is said once, and each call tries it again.
func (n *Network) save() {
	if n.cfg.Bindings == "" {
		return
	}
	n.ledger.saving.Lock()
	defer n.ledger.saving.Unlock()
	entries, dirty := n.entries()
	if !dirty {
		return
	}
	err := keep(n.cfg.Bindings, entries)
	switch {
	case err != nil && !n.ledger.failing:
		// What is bound now may be forgotten with us; not to bind would be worse.
		n.cfg.Log.Error("bindings not noted", "file", n.cfg.Bindings, "error", err)
	case err == nil && n.ledger.failing:
		n.cfg.Log.Info("bindings noted again", "file", n.cfg.Bindings)
	}
	n.ledger.failing = err != nil
	if err != nil {
		n.mu.Lock()
		n.ledger.dirty = true
		n.mu.Unlock()
	}
}

// entries returns what the file has to say, if that has changed.
func (n *Network) entries() ([]entry, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.ledger.dirty {
		return nil, false
	}
	n.ledger.dirty = false
	entries := []entry{}
	names := kinds()
	for b, m := range n.ledger.made {
		entries = append(entries, entry{
			b.Broker, filePlace{names[b.From.Kind], b.From.Address}, filePlace{names[b.To.Kind], b.To.Address}, b.Key, m.ways,
		})
	}
	slices.SortFunc(entries, func(a, b entry) int {
		return cmp.Or(cmp.Compare(a.Broker, b.Broker), cmp.Compare(a.From.Address, b.From.Address), cmp.Compare(a.To.Address, b.To.Address))
	})
	return entries, true
}

// keep writes what shall be known in the next run.
func keep(path string, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.Write(path, append(text, '\n'))
}
