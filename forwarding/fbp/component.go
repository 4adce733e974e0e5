package fbp

// ListComponents asks for all components.
type ListComponents struct{}

// Component says what a component is.
type Component struct {
	Name        string `json:"name"` // with its library: "core/Repeat"
	Description string `json:"description,omitempty"`
	Icon        string `json:"icon,omitempty"`
	Subgraph    bool   `json:"subgraph"`
	InPorts     []Port `json:"inPorts"`
	OutPorts    []Port `json:"outPorts"`
}

// ComponentsReady says that all components have been sent, and how many they were. noflo-ui waits for it for ever.
type ComponentsReady int

// GetSource asks for a component's source, or a graph's.
type GetSource struct {
	Name string `json:"name"` // with its library
}

// Source is a component's source. From a client it is to be used from now on.
type Source struct {
	Name     string `json:"name"`     // without its library
	Language string `json:"language"` // "json" and "fbp" are graphs
	Library  string `json:"library,omitempty"`
	Code     string `json:"code"`
	Tests    string `json:"tests,omitempty"`
}

// Kind returns ComponentList.
func (ListComponents) Kind() Kind { return ComponentList }

// Kind returns ComponentComponent.
func (Component) Kind() Kind { return ComponentComponent }

// Kind returns ComponentComponentsReady.
func (ComponentsReady) Kind() Kind { return ComponentComponentsReady }

// Kind returns ComponentGetSource.
func (GetSource) Kind() Kind { return ComponentGetSource }

// Kind returns ComponentSource.
func (Source) Kind() Kind { return ComponentSource }
