package discovery

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// memory is what outlives a registry.
type memory struct {
	Version      int        `json:"version"`
	Incarnations uint64     `json:"incarnations"`
	Present      []memorial `json:"present"`
}

// memorial is a presence as it is remembered.
type memorial struct {
	Broker      string          `json:"broker"`
	Address     string          `json:"address"`
	Incarnation uint64          `json:"incarnation"`
	Born        time.Time       `json:"born"`
	First       time.Time       `json:"first"`
	Last        time.Time       `json:"last"`
	Definition  json.RawMessage `json:"definition"`
}

const memoryVersion = 1

// Save returns who is there, for Restore in a later run: participants announce themselves each half minute or once a month,
// and do not know that somebody has to be told again.
func (r *Registry) Save() ([]byte, error) {
	r.mu.Lock()
	m := memory{Version: memoryVersion, Incarnations: r.incarnations, Present: make([]memorial, 0, len(r.here))}
	defs := make([]Definition, 0, len(r.here))
	for _, p := range r.here {
		m.Present = append(m.Present, memorial{
			Broker: p.Broker, Address: p.Address, Incarnation: p.of.incarnation, Born: p.of.first, First: p.First, Last: p.Last,
		})
		defs = append(defs, p.Definition)
	}
	r.mu.Unlock()
	for i := range defs { // by far the longest part, and outside the lock
		text, err := json.Marshal(defs[i])
		if err != nil {
			return nil, fmt.Errorf("participant %s: %w", defs[i].ID, err)
		}
		m.Present[i].Definition = text
	}
	// The one that was seen first stays the first.
	slices.SortFunc(m.Present, func(a, b memorial) int { return a.First.Compare(b.First) })
	return json.Marshal(m)
}

// Restore takes over who was there when text was saved, as if nobody had listened since: who has gone meanwhile is missed
// after the usual time, from when somebody listens. Incarnations stay what they were. It is called before anything is heard.
// A text that is none, or of a version that is not known, restores nobody and is an error; single participants that cannot be
// read are left out, and are errors too.
func (r *Registry) Restore(text []byte) error {
	var m memory
	if err := json.Unmarshal(text, &m); err != nil {
		return err
	}
	if m.Version != memoryVersion {
		return fmt.Errorf("version %d is not known", m.Version)
	}
	var errs []error
	r.mu.Lock()
	defer r.mu.Unlock()
	r.incarnations = max(r.incarnations, m.Incarnations)
	for _, saved := range m.Present {
		def, err := Parse(saved.Definition)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if err := r.restore(saved, def); err != nil {
			errs = append(errs, err)
		}
	}
	r.next = time.Time{}
	return errors.Join(errs...)
}

func (r *Registry) restore(saved memorial, def Definition) error {
	key, bytes := identity{saved.Broker, def.ID}, def.bytes()
	if r.here[key] != nil {
		return nil
	}
	if len(r.here) >= r.cfg.Max || r.bytes+bytes > r.cfg.MaxBytes {
		return ErrFull
	}
	p := &presence{
		Presence: Presence{Place: Place{saved.Broker, saved.Address}, Definition: def, First: saved.First, Last: saved.Last},
		bytes:    bytes,
	}
	who := player{def.ID, def.Role}
	if p.of = r.participants[who]; p.of == nil {
		p.of = &participant{incarnation: saved.Incarnation, first: saved.Born}
		r.participants[who] = p.of
		r.incarnations = max(r.incarnations, saved.Incarnation)
	}
	p.of.on = append(p.of.on, p)
	r.here[key] = p
	r.bytes += bytes
	// Until somebody listens there, nobody is missed.
	if _, is := r.places[p.Place]; !is {
		r.places[p.Place] = listening{deaf: true}
	}
	return nil
}
