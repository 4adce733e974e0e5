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
	if len(os.Args) == 2 && os.Args[1] == "guard" {
		process.KeepWatch(os.Stdin)
		return
	}
	if os.Getenv("FLOGATE_TEST_GUARDED") != "" {
		beGuarded()
	}
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

// beGuarded plays a parent with a guard that is about to be killed. It prints what its two children have started, the first
// of which is not held any more.
func beGuarded() {
	guard, err := process.StartGuard(exec.CommandContext(context.Background(), os.Args[0], "guard"))
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	for _, release := range []bool{true, false} {
		cmd := exec.CommandContext(context.Background(), "sh", "-c", "sleep 60 & echo $!; wait")
		held, lines := make(chan int, 1), make(chan string, 1)
		cmd.Stdout = &process.Lines{Line: func(l []byte) { lines <- string(l) }}
		go func() { _ = process.Run(cmd, time.Second, func(pid int) { held <- pid }) }()
		group := <-held
		if err := guard.Hold(group); err != nil {
			fmt.Println(err)
		}
		if release {
			_ = guard.Release(group)
		}
		fmt.Println(<-lines)
	}
	select {}
}

func TestKilledParentLeavesNothingThatItsGuardHolds(t *testing.T) {
	parent := exec.CommandContext(t.Context(), os.Args[0])
	parent.Env = append(os.Environ(), "FLOGATE_TEST_GUARDED=yes")
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	var started []int
	for lines := bufio.NewScanner(out); len(started) < 2 && lines.Scan(); {
		pid, err := strconv.Atoi(lines.Text())
		if err != nil {
			t.Fatal(lines.Text())
		}
		started = append(started, pid)
	}
	_ = parent.Process.Kill()
	_ = parent.Wait() // it was killed
	if len(started) < 2 {
		t.Fatal("the parent has started nothing")
	}
	gone(t, started[1])
	if err := syscall.Kill(started[0], syscall.SIGKILL); err != nil {
		t.Error("what was released was killed as well: ", err)
	}
}

func TestGuardEndsWhenItIsClosed(t *testing.T) {
	guard, err := process.StartGuard(exec.CommandContext(t.Context(), os.Args[0], "guard"))
	if err != nil {
		t.Fatal(err)
	}
	if err := guard.Close(); err != nil {
		t.Error(err)
	}
	if err := guard.Hold(1 << 30); err == nil {
		t.Error("a guard that has ended took something")
	}
	var none *process.Guard
	if err := errors.Join(none.Hold(2), none.Release(2), none.Close()); err != nil {
		t.Error("no guard: ", err)
	}
}

func TestFrozenGuardDoesNotHoldUpTheEnd(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), os.Args[0], "guard")
	guard, err := process.StartGuard(cmd)
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- guard.Close() }()
	select {
	case err := <-done:
		if err == nil {
			t.Error("a guard that was killed ended well")
		}
	case <-time.After(20 * time.Second):
		_ = cmd.Process.Kill()
		t.Fatal("it holds up the end")
	}
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
