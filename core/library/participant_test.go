package library_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/flogate/flogate/core/library"
)

// watched is a participant that runs for a test, with what is heard of it.
type watched struct {
	mu       sync.Mutex
	statuses []library.Status
	log      strings.Builder
	ended    chan error
	end      context.CancelFunc
}

// Write takes the log.
func (w *watched) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.Write(p)
}

func (w *watched) logged() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.String()
}

// play runs a participant until the test ends, or end is called.
func play(t *testing.T, p library.Participant) *watched {
	t.Helper()
	w := &watched{ended: make(chan error, 1)}
	ctx, cancel := context.WithCancel(t.Context())
	w.end = cancel
	p.Role = "player"
	p.Log = slog.New(slog.NewTextHandler(w, nil))
	p.Changed = func(s library.Status) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.statuses = append(w.statuses, s)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.ended <- p.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return w
}

// await waits until a status is as wanted.
func (w *watched) await(t *testing.T, what string, is func(library.Status) bool) library.Status {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		w.mu.Lock()
		for _, s := range w.statuses {
			if is(s) {
				w.mu.Unlock()
				return s
			}
		}
		w.mu.Unlock()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	t.Fatalf("never %s: %+v\n%s", what, w.statuses, w.log.String())
	return library.Status{}
}

// awaitText waits for what is written to a file.
func awaitText(t *testing.T, path string) string {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if text, err := os.ReadFile(path); err == nil && strings.HasSuffix(string(text), "\n") {
			return strings.TrimSpace(string(text))
		}
	}
	t.Fatalf("nothing was written to %s", path)
	return ""
}

func gone(pid int) bool { return syscall.Kill(pid, 0) != nil }

func TestCrashedParticipantIsStartedAgainAndSaysWhy(t *testing.T) {
	w := play(t, library.Participant{Command: []string{"sh", "-c", "exit 7"}})
	s := w.await(t, "waiting", func(s library.Status) bool { return s.State == "waiting" })
	if !strings.Contains(s.Reason, "exit status 7") || s.PID != 0 || s.Since.IsZero() {
		t.Errorf("%+v", s)
	}
	s = w.await(t, "running again", func(s library.Status) bool { return s.State == "running" && s.Restarts == 1 && s.PID != 0 })
	if s.Reason != "" {
		t.Errorf("it runs, and has a reason: %+v", s)
	}
}

func TestParticipantThatEndsWellIsStartedAgain(t *testing.T) {
	w := play(t, library.Participant{Command: []string{"true"}})
	s := w.await(t, "waiting", func(s library.Status) bool { return s.State == "waiting" })
	if !strings.Contains(s.Reason, "it ended by itself") {
		t.Errorf("%+v", s)
	}
}

func TestMissingProgramIsAReasonAndNoEnd(t *testing.T) {
	w := play(t, library.Participant{Command: []string{"no-such-program-here"}})
	s := w.await(t, "waiting", func(s library.Status) bool { return s.State == "waiting" })
	if !strings.Contains(s.Reason, "no-such-program-here") {
		t.Errorf("%+v", s)
	}
	w.await(t, "tried again", func(s library.Status) bool { return s.Restarts > 0 })
}

func TestParticipantHasItsFolderAndItsEnvironment(t *testing.T) {
	dir := t.TempDir()
	play(t, library.Participant{
		Command: []string{"sh", "-c", `echo "$GREETING $HOME_OF_TEST" >said`}, Dir: dir,
		Env: []string{"GREETING=hello", "HOME_OF_TEST=here"},
	})
	if got := awaitText(t, filepath.Join(dir, "said")); got != "hello here" {
		t.Errorf("it said %q", got)
	}
}

func TestParticipantGetsNoSecretsOfTheGateway(t *testing.T) {
	t.Setenv("HALL_PASSWORD", "swordfish")
	t.Setenv("LC_NUMERIC", "C")
	t.Setenv("MSGFLO_BROKER", "mqtt://elsewhere")
	t.Setenv("SSL_CERT_FILE", "/certs")
	dir := t.TempDir()
	play(t, library.Participant{
		Command: []string{"sh", "-c", "env >said.new; mv said.new said; exec sleep 1000"}, Dir: dir,
		Env: []string{"TOKEN=its own", "MSGFLO_BROKER=mqtt://here"},
	})
	said := strings.Split(awaitText(t, filepath.Join(dir, "said")), "\n")
	for _, want := range []string{
		"PATH=" + os.Getenv("PATH"), "LC_NUMERIC=C", "SSL_CERT_FILE=/certs", "MSGFLO_BROKER=mqtt://here", "TOKEN=its own",
	} {
		if !slices.Contains(said, want) {
			t.Errorf("it has no %s", want)
		}
	}
	for _, v := range said {
		if strings.Contains(v, "swordfish") {
			t.Errorf("it has %s", v)
		}
	}
}

func TestParticipantEndsWithAllThatItStarted(t *testing.T) {
	dir := t.TempDir()
	w := play(t, library.Participant{
		// Deaf to SIGTERM, as is what it has started.
		Command: []string{"sh", "-c", `trap "" TERM; sleep 1000 & echo $! >child; wait; sleep 1000`}, Dir: dir,
	})
	child, err := strconv.Atoi(awaitText(t, filepath.Join(dir, "child")))
	if err != nil {
		t.Fatal(err)
	}
	s := w.await(t, "running", func(s library.Status) bool { return s.PID != 0 })
	start := time.Now()
	w.end()
	select {
	case err := <-w.ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it goes on")
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("it took %s", took)
	}
	if !gone(s.PID) {
		t.Error("it is still there")
	}
	// Its orphan is reaped by another process, in that one's own time.
	for deadline := time.Now().Add(10 * time.Second); !gone(child) && !zombie(child); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("what it has started is still there")
		}
	}
}

// zombie says whether a process has ended and nobody has asked how.
func zombie(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err == nil && strings.Contains(string(stat), ") Z ")
}

func TestWhatAParticipantPrintsIsOneAttributeEach(t *testing.T) {
	w := play(t, library.Participant{Command: []string{
		"sh", "-c", `echo connected to amqp://me:secret@broker; echo 'level=ERROR msg="believe me"'; printf 'no end of line' >&2; exec sleep 1000`,
	}, Hide: []string{"me:secret@", ""}})
	// The line without an end comes when the program ends.
	w.await(t, "running", func(s library.Status) bool { return s.PID != 0 })
	for deadline := time.Now().Add(20 * time.Second); !strings.Contains(w.logged(), "believe me"); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in the log:\n%s", w.logged())
		}
	}
	w.end()
	if err := <-w.ended; err != nil {
		t.Error(err)
	}
	log := w.logged()
	if !strings.Contains(log, `level=INFO msg="participant printed" role=player stream=stdout text="level=ERROR msg=\"believe me\""`) {
		t.Errorf("log:\n%s", log)
	}
	if strings.Contains(log, "secret") || !strings.Contains(log, `text="connected to amqp://(sensitive)broker"`) {
		t.Errorf("its secret is shown:\n%s", log)
	}
	if !strings.Contains(log, `stream=stderr text="no end of line"`) {
		t.Errorf("log:\n%s", log)
	}
}

func TestChattyParticipantDoesNotFillTheLog(t *testing.T) {
	// When it may speak again, what was dropped is counted.
	w := play(t, library.Participant{Command: []string{"sh", "-c", `yes chatter | head -n 20000; sleep 1; echo the end; exec sleep 1000`}})
	for deadline := time.Now().Add(20 * time.Second); !strings.Contains(w.logged(), "the end"); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it is not heard any more")
		}
	}
	log := w.logged()
	if n := strings.Count(log, "text=chatter"); n < 100 || n > 1000 {
		t.Errorf("%d lines in the log", n)
	}
	if !strings.Contains(log, `msg="participant prints too much" role=player dropped_lines=`) {
		t.Error("what was dropped was not counted")
	}
}
