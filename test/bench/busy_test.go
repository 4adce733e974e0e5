package main

import (
	"runtime"
	"testing"
	"time"
)

func TestBusyIsEverythingButIdlingAndWaiting(t *testing.T) {
	const text = "cpu  10 1 20 1000 500 3 4 5 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n"
	got, err := parseBusy([]byte(text))
	if want := 43 * clockTick; err != nil || got != want {
		t.Errorf("got %s, %v, want %s", got, err, want)
	}
	for _, bad := range []string{"", "cpu 1 2", "cpu a b c d e f g h i j"} {
		if d, err := parseBusy([]byte(bad)); err == nil {
			t.Errorf("%q is %s", bad, d)
		}
	}
}

func TestOthersHaveWhatIsNotOurs(t *testing.T) {
	n := time.Duration(runtime.NumCPU())
	earlier := busyness{at: time.Unix(0, 0), all: 10 * time.Second, us: time.Second}
	later := busyness{at: time.Unix(10, 0), all: 10*time.Second + n*5*time.Second, us: time.Second + n*3*time.Second}
	if got := later.others(earlier); got < 0.199 || got > 0.201 {
		t.Errorf("others had %v of the machine, want 0.2", got)
	}
}
