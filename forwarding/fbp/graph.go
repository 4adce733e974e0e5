package fbp

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"slices"
	"strconv"
)

// ClearGraph makes an empty graph, in the place of one with the same id.
type ClearGraph struct {
	ID          string `json:"id"`
	Name        string `json:"name,omitempty"`
	Library     string `json:"library,omitempty"`
	Main        bool   `json:"main,omitempty"` // is no component
	Icon        string `json:"icon,omitempty"`
	Description string `json:"description,omitempty"`
}

// AddNode adds a node. A runtime's always has metadata.
type AddNode struct {
	ID        string   `json:"id"`
	Component string   `json:"component"`
	Metadata  Metadata `json:"metadata"`
	Graph     string   `json:"graph"`
}

// RemoveNode removes a node. A runtime first sends what went with it: edges and initial packets.
type RemoveNode struct {
	ID    string `json:"id"`
	Graph string `json:"graph"`
}

// RenameNode gives a node another id.
type RenameNode struct {
	From  string `json:"from"`
	To    string `json:"to"`
	Graph string `json:"graph"`
}

// ChangeNode changes a node's metadata. A client sends what shall change, null for what shall go; a runtime what has
// become of it, see [Merge].
type ChangeNode struct {
	ID       string   `json:"id"`
	Metadata Metadata `json:"metadata"`
	Graph    string   `json:"graph"`
}

// Endpoint is one end of an edge.
type Endpoint struct {
	Node  string `json:"node"`
	Port  string `json:"port"`
	Index Index  `json:"index,omitempty"`
}

// AddEdge adds an edge.
type AddEdge struct {
	Src      Endpoint `json:"src"`
	Tgt      Endpoint `json:"tgt"`
	Metadata Metadata `json:"metadata,omitempty"` // nil if there was none
	Graph    string   `json:"graph"`
}

// RemoveEdge removes an edge.
type RemoveEdge struct {
	Src   Endpoint `json:"src"`
	Tgt   Endpoint `json:"tgt"`
	Graph string   `json:"graph"`
}

// ChangeEdge changes an edge's metadata, as ChangeNode does a node's.
type ChangeEdge struct {
	Src      Endpoint `json:"src"`
	Tgt      Endpoint `json:"tgt"`
	Metadata Metadata `json:"metadata"`
	Graph    string   `json:"graph"`
}

// Initial is the data of an initial packet.
type Initial struct {
	Data json.RawMessage `json:"data"` // nil is null
}

// AddInitial adds an initial packet.
type AddInitial struct {
	Src      Initial  `json:"src"`
	Tgt      Endpoint `json:"tgt"`
	Metadata Metadata `json:"metadata,omitempty"` // nil if there was none
	Graph    string   `json:"graph"`
}

// RemoveInitial removes an initial packet. A runtime's has its data, a client's need not.
type RemoveInitial struct {
	Src   *Initial `json:"src,omitempty"`
	Tgt   Endpoint `json:"tgt"`
	Graph string   `json:"graph"`
}

// AddInport exports a node's inport.
type AddInport struct {
	Public   string   `json:"public"`
	Node     string   `json:"node"`
	Port     string   `json:"port"`
	Metadata Metadata `json:"metadata,omitempty"` // nil if there was none
	Graph    string   `json:"graph"`
}

// RemoveInport takes it back.
type RemoveInport struct {
	Public string `json:"public"`
	Graph  string `json:"graph"`
}

// RenameInport gives it another public name.
type RenameInport struct {
	From  string `json:"from"`
	To    string `json:"to"`
	Graph string `json:"graph"`
}

// AddOutport exports a node's outport.
type AddOutport AddInport

// RemoveOutport takes it back.
type RemoveOutport RemoveInport

// RenameOutport gives it another public name.
type RenameOutport RenameInport

// AddGroup makes a group of nodes.
type AddGroup struct {
	Name     string   `json:"name"`
	Nodes    []string `json:"nodes"`
	Metadata Metadata `json:"metadata,omitempty"` // nil if there was none
	Graph    string   `json:"graph"`
}

// RemoveGroup removes a group; its nodes stay.
type RemoveGroup struct {
	Name  string `json:"name"`
	Graph string `json:"graph"`
}

// RenameGroup gives a group another name.
type RenameGroup struct {
	From  string `json:"from"`
	To    string `json:"to"`
	Graph string `json:"graph"`
}

// ChangeGroup changes a group's metadata, as ChangeNode does a node's.
type ChangeGroup struct {
	Name     string   `json:"name"`
	Metadata Metadata `json:"metadata"`
	Graph    string   `json:"graph"`
}

// Metadata is what clients attach to the parts of a graph: the text of a JSON object, in which keys keep their order and
// numbers their spelling. nil is none.
type Metadata json.RawMessage

// MarshalJSON returns the text, {} for none.
func (m Metadata) MarshalJSON() ([]byte, error) {
	if m == nil {
		return []byte("{}"), nil
	}
	return m, nil
}

// UnmarshalJSON keeps the text.
func (m *Metadata) UnmarshalJSON(text []byte) error {
	*m = bytes.Clone(text)
	return nil
}

// Merge returns metadata with a change laid over it: null takes a key away, a new key comes last. The result is an object,
// {} if nothing is left. Both may be nil; an error means that one is no object.
func Merge(metadata, change Metadata) (Metadata, error) {
	was, err := metadataKeys(metadata)
	if err != nil {
		return nil, err
	}
	wanted, err := metadataKeys(change)
	if err != nil {
		return nil, err
	}
	for _, one := range wanted {
		i := slices.IndexFunc(was, func(old member) bool { return old.key == one.key })
		switch gone := one.value[0] == 'n'; {
		case i >= 0 && gone:
			was = slices.Delete(was, i, i+1)
		case i >= 0:
			was[i].value = one.value
		case !gone:
			was = append(was, one)
		}
	}
	merged := make(Metadata, 0, len(metadata)+len(change)+2)
	merged = append(merged, '{')
	for i, one := range was {
		if i > 0 {
			merged = append(merged, ',')
		}
		merged = append(append(append(merged, one.name...), ':'), one.value...)
	}
	return append(merged, '}'), nil
}

func metadataKeys(metadata Metadata) ([]member, error) {
	if metadata == nil {
		return nil, nil
	}
	if err := checkText(metadata); err != nil {
		return nil, errors.Join(errors.New("metadata"), err)
	}
	text := trim(metadata)
	if text[0] != '{' {
		return nil, errors.New("metadata is no object")
	}
	return members(text)
}

// Index is a place in an array port, as its JSON is spelled: a number or a string. "" is none: the port as a whole.
type Index string

// At returns the Index of place i, counted from 0.
func At(i int) Index { return Index(strconv.Itoa(i)) }

// Value returns the place, counted from 0, and whether there is one that is a whole number. Strings of digits count.
func (x Index) Value() (i int, ok bool) {
	if len(x) > 1 && x[0] == '"' {
		i, err := strconv.ParseUint(string(x[1:len(x)-1]), 10, 31)
		return int(i), err == nil
	}
	f, err := strconv.ParseFloat(string(x), 64)
	if err != nil || f != math.Trunc(f) || f < 0 || f > math.MaxInt32 {
		return 0, false
	}
	return int(f), true
}

// MarshalJSON returns the text.
func (x Index) MarshalJSON() ([]byte, error) { return []byte(x), nil }

// UnmarshalJSON keeps the text; null is none.
func (x *Index) UnmarshalJSON(text []byte) error {
	if *x = ""; text[0] != 'n' {
		*x = Index(text)
	}
	return nil
}

// Kind returns GraphClear.
func (ClearGraph) Kind() Kind { return GraphClear }

// Kind returns GraphAddNode.
func (AddNode) Kind() Kind { return GraphAddNode }

// Kind returns GraphRemoveNode.
func (RemoveNode) Kind() Kind { return GraphRemoveNode }

// Kind returns GraphRenameNode.
func (RenameNode) Kind() Kind { return GraphRenameNode }

// Kind returns GraphChangeNode.
func (ChangeNode) Kind() Kind { return GraphChangeNode }

// Kind returns GraphAddEdge.
func (AddEdge) Kind() Kind { return GraphAddEdge }

// Kind returns GraphRemoveEdge.
func (RemoveEdge) Kind() Kind { return GraphRemoveEdge }

// Kind returns GraphChangeEdge.
func (ChangeEdge) Kind() Kind { return GraphChangeEdge }

// Kind returns GraphAddInitial.
func (AddInitial) Kind() Kind { return GraphAddInitial }

// Kind returns GraphRemoveInitial.
func (RemoveInitial) Kind() Kind { return GraphRemoveInitial }

// Kind returns GraphAddInport.
func (AddInport) Kind() Kind { return GraphAddInport }

// Kind returns GraphRemoveInport.
func (RemoveInport) Kind() Kind { return GraphRemoveInport }

// Kind returns GraphRenameInport.
func (RenameInport) Kind() Kind { return GraphRenameInport }

// Kind returns GraphAddOutport.
func (AddOutport) Kind() Kind { return GraphAddOutport }

// Kind returns GraphRemoveOutport.
func (RemoveOutport) Kind() Kind { return GraphRemoveOutport }

// Kind returns GraphRenameOutport.
func (RenameOutport) Kind() Kind { return GraphRenameOutport }

// Kind returns GraphAddGroup.
func (AddGroup) Kind() Kind { return GraphAddGroup }

// Kind returns GraphRemoveGroup.
func (RemoveGroup) Kind() Kind { return GraphRemoveGroup }

// Kind returns GraphRenameGroup.
func (RenameGroup) Kind() Kind { return GraphRenameGroup }

// Kind returns GraphChangeGroup.
func (ChangeGroup) Kind() Kind { return GraphChangeGroup }
