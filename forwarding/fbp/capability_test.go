package fbp_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/flogate/flogate/forwarding/fbp"
)

// TestCapabilitiesAllowWhatTheyDid has the golden file that test/peers/fbp compares with the specification.
func TestCapabilitiesAllowWhatTheyDid(t *testing.T) {
	var text []byte
	for _, one := range fbp.AllCapabilities() {
		for _, k := range fbp.Inputs() {
			if k != fbp.RuntimeGetRuntime && (fbp.Capabilities{one}).MaySend(k) {
				text = fmt.Appendf(text, "%s sends %s\n", one, k)
			}
		}
		for _, k := range fbp.Outputs() {
			if k != fbp.RuntimeRuntime && (fbp.Capabilities{one}).MayReceive(k) {
				text = fmt.Appendf(text, "%s receives %s\n", one, k)
			}
		}
	}
	golden(t, "capabilities.txt", text)
}

func TestEverythingIsAllowedByACapability(t *testing.T) {
	for _, k := range fbp.Inputs() {
		if !fbp.AllCapabilities().MaySend(k) {
			t.Errorf("nobody may send %s", k)
		}
	}
	for _, k := range fbp.Outputs() {
		if !fbp.AllCapabilities().MayReceive(k) {
			t.Errorf("nobody may receive %s", k)
		}
	}
}

func TestWithoutCapabilitiesThereIsOnlyTheRuntime(t *testing.T) {
	for _, k := range fbp.Inputs() {
		if (fbp.Capabilities{"protocol:unknown"}).MaySend(k) != (k == fbp.RuntimeGetRuntime) {
			t.Error(k)
		}
	}
	for _, k := range fbp.Outputs() {
		if fbp.Capabilities(nil).MayReceive(k) != (k == fbp.RuntimeRuntime) {
			t.Error(k)
		}
	}
}

func TestNobodyMaySendEventsOrWhatIsUnknown(t *testing.T) {
	for _, k := range append(fbp.Outputs(), "graph:list", "other:start", "") {
		if !slices.Contains(fbp.Inputs(), k) && fbp.AllCapabilities().MaySend(k) {
			t.Errorf("%s may be sent", k)
		}
	}
}

// TestWhoMaySendMayReceiveTheAnswer, because fbp-client fails a request whose answer it may not have.
func TestWhoMaySendMayReceiveTheAnswer(t *testing.T) {
	for _, one := range fbp.AllCapabilities() {
		for _, k := range fbp.Inputs() {
			if alone := (fbp.Capabilities{one}); alone.MaySend(k) && !alone.MayReceive(k.Answer()) {
				t.Errorf("with %s one may send %s and not receive %s", one, k, k.Answer())
			}
		}
	}
}

func TestEveryRequestHasAnAnswerThatIsOne(t *testing.T) {
	for _, k := range fbp.Inputs() {
		if !slices.Contains(fbp.Outputs(), k.Answer()) || k.Answer().Protocol() != k.Protocol() {
			t.Errorf("%s is answered with %s", k, k.Answer())
		}
	}
	if got := fbp.NetworkData.Answer(); got != "" {
		t.Errorf("%s is answered with %s", fbp.NetworkData, got)
	}
}
