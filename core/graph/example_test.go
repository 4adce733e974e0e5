package graph_test

import (
	"errors"
	"fmt"

	"github.com/flogate/flogate/core/graph"
)

func Example() {
	g, err := graph.ParseFBP("motorcontrol.fbp", []byte(`# @runtime msgflo

# The button starts the motor.
button(demo/Button) PRESSED -> START motor(demo/Motor) # by hand
motor RUNNING -> RED warninglight(demo/Light)
`))
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, e := range g.Edges {
		fmt.Println(e)
	}
	if err := g.RenameNode("motor", "engine"); err != nil {
		fmt.Println(err)
		return
	}
	text, err := g.FBP()
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("\n%s", text)
	// Output:
	// button.pressed -> motor.start
	// motor.running -> warninglight.red
	//
	// # @runtime msgflo
	//
	// # The button starts the motor.
	// button(demo/Button) PRESSED -> START engine(demo/Motor) # by hand
	// engine RUNNING -> RED warninglight(demo/Light)
}

func ExampleErrors() {
	_, err := graph.ParseFBP("hall.fbp", []byte(`button(demo/Button) PRESSED -> START motor
lamp(demo/Light; -> IN x
`))
	if all, ok := errors.AsType[graph.Errors](err); ok {
		for _, one := range all {
			fmt.Printf("line %d, column %d: %s\n", one.Line, one.Column, one.Message)
		}
	}
	// Output:
	// line 1, column 38: node "motor" is not declared: write motor(Component) once
	// line 2, column 16: expected (component:key=value,…) of letters, digits, "/", "-" and "_", found ';'
}
