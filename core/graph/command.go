package graph

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strconv"
)

// A Change is one change of a graph as data. There is a type for each command of the FBP protocol that changes a graph;
// the JSON of each is the payload of that command, without the graph, in a fixed order of keys. What a Change holds is
// shared with the graphs it was made to, and nobody changes it in place.
//
// ChangeProperties alone is not in the protocol, which cannot change the properties of a graph but by clearing it.
type Change interface {
	// Command is the name of the command in the protocol: "addnode".
	Command() string

	// apply makes the change, or leaves g untouched. effects and undo are as Apply has them.
	apply(g *Graph) (effects, undo []Change, err error)
}

// The changes. What a field means is said in the protocol; ends without an index stand for every place of an array port
// where there is nothing at the port as a whole.
type (
	// Clear empties the graph, and sets or removes those properties that it has fields for. Others stay, for it cannot say
	// them: "environment" for one.
	Clear struct {
		Name        string `json:"name,omitempty"`
		Library     string `json:"library,omitempty"`
		Main        bool   `json:"main,omitempty"` // not a property of the graph: for who keeps it
		Icon        string `json:"icon,omitempty"`
		Description string `json:"description,omitempty"`
	}
	// ChangeProperties merges properties into those of the graph, "name" being its name: a nil value removes its key.
	// CaseSensitive, if there, can only be changed while there are no nodes.
	ChangeProperties struct {
		Properties    Metadata `json:"properties"`
		CaseSensitive *bool    `json:"caseSensitive,omitempty"`
	}

	// AddNode adds a node at the end.
	AddNode Node
	// RemoveNode removes a node and what hangs on it.
	RemoveNode struct {
		ID string `json:"id"`
	}
	// RenameNode gives a node another id; it keeps what hangs on it.
	RenameNode renaming
	// ChangeNode merges metadata into a node's: a nil value removes its key.
	ChangeNode struct {
		ID       string   `json:"id"`
		Metadata Metadata `json:"metadata"`
	}

	// AddEdge adds an edge at the end.
	AddEdge Edge
	// RemoveEdge removes the edge between these ends.
	RemoveEdge struct {
		Src Endpoint `json:"src"`
		Tgt Endpoint `json:"tgt"`
	}
	// ChangeEdge merges metadata into an edge's: a nil value removes its key.
	ChangeEdge Edge

	// AddInitial adds an initial packet at the end.
	AddInitial struct {
		Src      Packet   `json:"src"`
		Tgt      Endpoint `json:"tgt"`
		Metadata Metadata `json:"metadata,omitzero"`
	}
	// RemoveInitial removes the packets of a port or, if Src is there, the last of them with this data.
	RemoveInitial struct {
		Src *Packet  `json:"src,omitempty"`
		Tgt Endpoint `json:"tgt"`
	}

	// AddInport exports a node's inport, RemoveInport takes it back, RenameInport gives it another public name.
	AddInport    Exported
	RemoveInport exportName
	RenameInport renaming
	// AddOutport exports a node's outport, RemoveOutport takes it back, RenameOutport gives it another public name.
	AddOutport    Exported
	RemoveOutport exportName
	RenameOutport renaming

	// AddGroup groups nodes.
	AddGroup Group
	// RemoveGroup removes a group; its nodes stay.
	RemoveGroup struct {
		Name string `json:"name"`
	}
	// RenameGroup gives a group another name.
	RenameGroup renaming
	// ChangeGroup merges metadata into a group's: a nil value removes its key.
	ChangeGroup struct {
		Name     string   `json:"name"`
		Metadata Metadata `json:"metadata"`
	}
)

// Packet is the data of an initial packet, as the protocol has it.
type Packet struct {
	Data json.RawMessage `json:"data"`
}

type renaming struct {
	From string `json:"from"`
	To   string `json:"to"`
}

type exportName struct {
	Public string `json:"public"`
}

// Command returns "clear".
func (Clear) Command() string { return "clear" }

// Command returns "changeproperties", which the protocol does not have.
func (ChangeProperties) Command() string { return "changeproperties" }

// Command returns "addnode".
func (AddNode) Command() string { return "addnode" }

// Command returns "removenode".
func (RemoveNode) Command() string { return "removenode" }

// Command returns "renamenode".
func (RenameNode) Command() string { return "renamenode" }

// Command returns "changenode".
func (ChangeNode) Command() string { return "changenode" }

// Command returns "addedge".
func (AddEdge) Command() string { return "addedge" }

// Command returns "removeedge".
func (RemoveEdge) Command() string { return "removeedge" }

// Command returns "changeedge".
func (ChangeEdge) Command() string { return "changeedge" }

// Command returns "addinitial".
func (AddInitial) Command() string { return "addinitial" }

// Command returns "removeinitial".
func (RemoveInitial) Command() string { return "removeinitial" }

// Command returns "addinport".
func (AddInport) Command() string { return "addinport" }

// Command returns "removeinport".
func (RemoveInport) Command() string { return "removeinport" }

// Command returns "renameinport".
func (RenameInport) Command() string { return "renameinport" }

// Command returns "addoutport".
func (AddOutport) Command() string { return "addoutport" }

// Command returns "removeoutport".
func (RemoveOutport) Command() string { return "removeoutport" }

// Command returns "renameoutport".
func (RenameOutport) Command() string { return "renameoutport" }

// Command returns "addgroup".
func (AddGroup) Command() string { return "addgroup" }

// Command returns "removegroup".
func (RemoveGroup) Command() string { return "removegroup" }

// Command returns "renamegroup".
func (RenameGroup) Command() string { return "renamegroup" }

// Command returns "changegroup".
func (ChangeGroup) Command() string { return "changegroup" }

// Payload returns the payload of the command, without the graph. An error means that metadata or data hold something that
// JSON cannot.
func Payload(c Change) (json.RawMessage, error) {
	raw, err := encode(c)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.Command(), err)
	}
	return raw, nil
}

// ParseChange reads the payload of a command of the FBP protocol. Keys that the command does not have are dropped. What
// is missing shows when the change is applied. It returns ErrUnknownCommand for what does not change a graph.
func ParseChange(command string, payload []byte) (Change, error) {
	switch command {
	case "clear":
		return parseAs[Clear](command, payload)
	case "changeproperties":
		return parseAs[ChangeProperties](command, payload)
	case "addnode":
		return parseAs[AddNode](command, payload)
	case "removenode":
		return parseAs[RemoveNode](command, payload)
	case "renamenode":
		return parseAs[RenameNode](command, payload)
	case "changenode":
		return parseAs[ChangeNode](command, payload)
	case "addedge":
		return parseAs[AddEdge](command, payload)
	case "removeedge":
		return parseAs[RemoveEdge](command, payload)
	case "changeedge":
		return parseAs[ChangeEdge](command, payload)
	case "addinitial":
		return parseAs[AddInitial](command, payload)
	case "removeinitial":
		return parseAs[RemoveInitial](command, payload)
	case "addinport":
		return parseAs[AddInport](command, payload)
	case "removeinport":
		return parseAs[RemoveInport](command, payload)
	case "renameinport":
		return parseAs[RenameInport](command, payload)
	case "addoutport":
		return parseAs[AddOutport](command, payload)
	case "removeoutport":
		return parseAs[RemoveOutport](command, payload)
	case "renameoutport":
		return parseAs[RenameOutport](command, payload)
	case "addgroup":
		return parseAs[AddGroup](command, payload)
	case "removegroup":
		return parseAs[RemoveGroup](command, payload)
	case "renamegroup":
		return parseAs[RenameGroup](command, payload)
	case "changegroup":
		return parseAs[ChangeGroup](command, payload)
	}
	return nil, fmt.Errorf("%q: %w", command, ErrUnknownCommand)
}

func parseAs[C Change](command string, payload []byte) (Change, error) {
	var c C
	err := json.Unmarshal(payload, &c)
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		what := wrong.Field
		if what == "" {
			what = "the payload"
		}
		return nil, fmt.Errorf("%s: %s must be %s, not %s", command, what, kindOf(wrong.Type), wrong.Value)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", command, err)
	}
	return c, nil
}

func kindOf(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Slice:
		return "an array"
	default:
		return "an object"
	}
}

// Changes is a list of changes in JSON: objects with the command and its payload.
type Changes []Change

type message struct {
	Command string          `json:"command"`
	Payload json.RawMessage `json:"payload"`
}

// MarshalJSON returns [{"command":"addnode","payload":{…}},…].
func (all Changes) MarshalJSON() ([]byte, error) {
	messages := make([]message, len(all))
	for i, c := range all {
		payload, err := Payload(c)
		if err != nil {
			return nil, err
		}
		messages[i] = message{c.Command(), payload}
	}
	return encode(messages)
}

// UnmarshalJSON reads what MarshalJSON writes.
func (all *Changes) UnmarshalJSON(src []byte) error {
	var messages []message
	if err := json.Unmarshal(src, &messages); err != nil {
		return err
	}
	*all = nil
	for _, m := range messages {
		c, err := ParseChange(m.Command, m.Payload)
		if err != nil {
			return err
		}
		*all = append(*all, c)
	}
	return nil
}

// MarshalJSON writes the place, counted from 0, and none as null.
func (x Index) MarshalJSON() ([]byte, error) {
	if i, ok := x.Value(); ok {
		return strconv.AppendInt(nil, int64(i), 10), nil
	}
	return []byte("null"), nil
}

// UnmarshalJSON reads a place as a number or, as the protocol allows, as a string. null and "" are no place.
func (x *Index) UnmarshalJSON(src []byte) error {
	text := string(bytes.Trim(src, `"`))
	if text == "null" || text == "" {
		*x = 0
		return nil
	}
	number, err := strconv.ParseFloat(text, 64)
	if err != nil || number < 0 || number >= 1<<31 || number != float64(int(number)) {
		return fmt.Errorf("index must be a whole number from 0, not %s", src)
	}
	*x = At(int(number))
	return nil
}
