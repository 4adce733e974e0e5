package fbp

// FlowtraceJSON is the only type of trace that there is.
const FlowtraceJSON = "flowtrace.json"

// StartTrace records what flows in a network.
type StartTrace struct {
	Graph      string `json:"graph"`
	BufferSize int64  `json:"buffersize,omitempty"` // bytes
}

// StopTrace ends the recording.
type StopTrace struct {
	Graph string `json:"graph"`
}

// DumpTrace asks for what was recorded.
type DumpTrace struct {
	Graph string `json:"graph"`
	Type  string `json:"type"` // FlowtraceJSON
}

// Flowtrace is what was recorded.
type Flowtrace struct {
	Graph string `json:"graph"`
	Type  string `json:"type"`      // FlowtraceJSON
	Trace string `json:"flowtrace"` // a flowtrace file
}

// ClearTrace forgets what was recorded.
type ClearTrace struct {
	Graph string `json:"graph"`
}

// Kind returns TraceStart.
func (StartTrace) Kind() Kind { return TraceStart }

// Kind returns TraceStop.
func (StopTrace) Kind() Kind { return TraceStop }

// Kind returns TraceDump.
func (DumpTrace) Kind() Kind { return TraceDump }

// Kind returns TraceDump.
func (Flowtrace) Kind() Kind { return TraceDump }

// Kind returns TraceClear.
func (ClearTrace) Kind() Kind { return TraceClear }
