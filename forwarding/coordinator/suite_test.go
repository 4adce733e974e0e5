package coordinator_test

import (
	"fmt"
	"testing"

	"github.com/flogate/flogate/forwarding"
	"github.com/flogate/flogate/forwarding/fbp"
	"github.com/flogate/flogate/forwarding/fbp/fbptest"
)

func TestCoordinatorPassesTheSuite(t *testing.T) {
	for _, strict := range []bool{false, true} {
		t.Run(fmt.Sprintf("strict=%v", strict), func(t *testing.T) {
			s := newSite(t)
			s.policy = forwarding.Policy{Grants: []forwarding.Grant{
				{Secret: fbp.NewSecret("open"), Access: forwarding.Access{Capabilities: fbp.AllCapabilities()}},
			}}
			s.run()
			open := func(testing.TB) fbptest.Conn { return s.dial("open") }
			fbptest.Run(t, open, fbptest.Options{Strict: strict, Secret: "open"})
		})
	}
}
