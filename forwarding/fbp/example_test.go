package fbp_test

import (
	"fmt"

	"github.com/flogate/flogate/forwarding/fbp"
)

// A runtime answers whatever comes.
func Example() {
	answer := func(message string) fbp.Output {
		in, err := fbp.DecodeInput([]byte(message))
		if err != nil {
			return in.Fail(err)
		}
		if may := (fbp.Capabilities{fbp.CapProtocolGraph}); !may.MaySend(in.Kind) { // what in.Secret allows
			return in.Fail(fbp.NotPermitted(in.Kind))
		}
		p, err := in.Parse()
		if err != nil {
			return in.Fail(err)
		}
		switch p := p.(type) {
		case fbp.AddNode:
			if p.Graph != "main" {
				return in.Fail(fbp.Error{Message: fbp.GraphNotFound})
			}
			out, err := in.Answer(p)
			if err != nil {
				return in.Fail(err)
			}
			return out
		default:
			return in.Fail(fbp.NotPermitted(in.Kind))
		}
	}
	for _, message := range []string{
		`{"protocol":"graph","command":"addnode","payload":{"id":"Repeat","component":"core/Repeat","graph":"main","secret":"s"},"requestId":"1"}`,
		`{"protocol":"graph","command":"addnode","payload":{"id":"Repeat","component":"core/Repeat","graph":"other"}}`,
		`{"protocol":"graph","command":"addnode","payload":{"id":"Repeat","component":"core/Repeat"}}`,
		`{"protocol":"network","command":"start","payload":{"graph":"main"}}`,
		`{"protocol":"graph","command":"addnode"}`,
	} {
		fmt.Println(string(answer(message).Append(nil)))
	}
	// Output:
	// {"protocol":"graph","command":"addnode","payload":{"id":"Repeat","component":"core/Repeat","metadata":{},"graph":"main"},"responseTo":"1"}
	// {"protocol":"graph","command":"error","payload":{"message":"Requested graph not found"}}
	// {"protocol":"graph","command":"error","payload":{"message":"No graph specified"}}
	// {"protocol":"network","command":"error","payload":{"message":"network:start is not permitted"}}
	// {"protocol":"graph","command":"error","payload":{"message":"graph:addnode: payload is missing"}}
}
