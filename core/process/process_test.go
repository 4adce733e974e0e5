package process_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/flogate/flogate/core/process"
)

func TestMain(m *testing.M) {
	if os.Getenv("FLOGATE_TEST_PARENT") != "" {
		// Play a parent that is about to be killed: its child prints its own process id and sleeps.
		cmd := exec.CommandContext(context.Background(), "sleep", "60")
		err := process.Run(cmd, time.Second, func(pid int) { fmt.Println(pid) })
		fmt.Println(err)
		return
	}
	goleak.VerifyTestMain(m)
}

func TestCancelledChildEndsWithWhatItStarted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	lines := make(chan string, 1)
	cmd := exec.CommandContext(ctx, "sh", "-c", "sleep 60 & echo $!; wait")
	cmd.Stdout = &process.Lines{Line: func(l []byte) { lines <- string(l) }}
	done := make(chan error, 1)
	go func() { done <- process.Run(cmd, time.Second, nil) }()
	grandchild, err := strconv.Atoi(<-lines)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-done; err == nil {
		t.Error("a child that was ended by a signal returned no error")
	}
	gone(t, grandchild)
}

func TestChildThatIgnoresTermIsKilled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	ready := make(chan struct{}, 1)
	cmd := exec.CommandContext(ctx, "sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done")
	cmd.Stdout = &process.Lines{Line: func([]byte) { ready <- struct{}{} }}
	done := make(chan error, 1)
	go func() { done <- process.Run(cmd, 200*time.Millisecond, nil) }()
	<-ready
	cancel()
	select {
	case err := <-done:
		if err == nil {
			t.Error("a child that was killed returned no error")
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the child was not killed")
	}
}

func TestKilledParentLeavesNoChild(t *testing.T) {
	parent := exec.CommandContext(t.Context(), os.Args[0])
	parent.Env = append(os.Environ(), "FLOGATE_TEST_PARENT=1")
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	child, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait()
	gone(t, child)
}

func TestLinesAreBounded(t *testing.T) {
	var got []int
	w := &process.Lines{Line: func(l []byte) { got = append(got, len(l)) }}
	fmt.Fprint(w, strings.Repeat("x", process.Longest+5), "\n\nab")
	w.Flush()
	if want := fmt.Sprint([]int{process.Longest, 5, 2}); fmt.Sprint(got) != want {
		t.Errorf("lines of %v, want %v", got, want)
	}
}

// gone waits until a process is no more, or only its remains are.
func gone(t *testing.T, pid int) {
	t.Helper()
	for range 200 {
		if err := syscall.Kill(pid, 0); errors.Is(err, syscall.ESRCH) {
			return
		}
		if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil && strings.Contains(string(stat), ") Z ") {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("process %d is alive", pid)
}
