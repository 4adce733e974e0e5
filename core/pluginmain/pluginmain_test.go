package pluginmain

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc/stats"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestGatewayIsGoneWhenItsLastConnectionIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatch()
		ctx := context.Background()
		gone := func() bool {
			synctest.Wait()
			select {
			case <-w.gone:
				return true
			default:
				return false
			}
		}
		time.Sleep(time.Hour)
		if gone() {
			t.Fatal("gone before it has come")
		}
		w.HandleConn(ctx, &stats.ConnBegin{})
		w.HandleConn(ctx, &stats.ConnBegin{})
		w.HandleConn(ctx, &stats.ConnEnd{})
		time.Sleep(time.Hour)
		if gone() {
			t.Fatal("gone with a connection")
		}
		w.HandleConn(ctx, &stats.ConnEnd{})
		time.Sleep(goneAfter / 2)
		w.HandleConn(ctx, &stats.ConnBegin{}) // it is back in time
		time.Sleep(time.Hour)
		if gone() {
			t.Fatal("gone although it came back")
		}
		w.HandleConn(ctx, &stats.ConnEnd{})
		time.Sleep(goneAfter)
		if !gone() || !w.wait(ctx) {
			t.Fatal("not gone")
		}
	})
}

func TestGatewayIsGoneWhenTheParentIsAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		own := newWatch()
		own.watchParent(ctx, os.Getppid())
		if own.wait(ctx) {
			t.Error("the parent is there")
		}
		other := newWatch()
		other.watchParent(t.Context(), os.Getppid()+1)
		if !other.wait(t.Context()) {
			t.Error("the parent is another")
		}
	})
}

func TestOneCPUUnlessTold(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	defer runtime.GOMAXPROCS(before)
	for v, want := range map[string]int{"": 1, "2": 2} {
		if err := setProcs(v); err != nil || runtime.GOMAXPROCS(0) != want {
			t.Errorf("%q: %d CPUs, %v", v, runtime.GOMAXPROCS(0), err)
		}
	}
	for _, v := range []string{"0", "-1", "many"} {
		if setProcs(v) == nil {
			t.Errorf("%q: no error", v)
		}
	}
}

func TestLogHasTheKeysOfTheGateway(t *testing.T) {
	var b bytes.Buffer
	log := slog.New(newHandler(&b, "warn"))
	log.Info("not this")
	log.Warn("careful", "n", 1, slog.Group("g", "level", "x"))
	var got map[string]any
	if err := json.Unmarshal(b.Bytes(), &got); err != nil {
		t.Fatalf("%v in %s", err, b.String())
	}
	if got["@level"] != "warn" || got["@message"] != "careful" || got["n"] != 1.0 || got["g"].(map[string]any)["level"] != "x" {
		t.Errorf("the line is %s", b.String())
	}
	at, _ := got["@timestamp"].(string)
	if _, err := time.Parse("2006-01-02T15:04:05.000000Z07:00", at); err != nil {
		t.Error(err)
	}
}
