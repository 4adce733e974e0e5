package main

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/flogate/flogate/test/brokers"
)

// TestMain makes this test the program too, under the name flogate, on the path of the scripts. What the program starts by
// its own file, plugins and brokers, has that name as well.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"flogate": main})
}

// patience bounds the scripts, which take some seconds each.
const patience = 2 * time.Minute

// TestScripts is the program's specification: a script for each rule.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		RequireExplicitExec: true,
		Deadline:            time.Now().Add(patience), // nothing that hangs is waited for longer
		RequireUniqueNames:  true,
		UpdateScripts:       os.Getenv("UPDATE") != "",
		Setup: func(env *testscript.Env) error {
			for _, name := range []string{"ADMIN", "MQTT", "NATS"} {
				env.Setenv(name, brokers.FreeAddress(t))
			}
			// Not the work folder: the path of a socket in it would be too long.
			dir, err := os.MkdirTemp("", "fg")
			if err != nil {
				return err
			}
			env.Defer(func() { _ = os.RemoveAll(dir) })
			env.Setenv("XDG_RUNTIME_DIR", dir)
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"await":  await,
			"exits":  exits,
			"expand": expand,
			"listen": listen,
			"signal": signalProcess,
		},
	})
}

// exits runs a program that has to end with an exit code:
//
//	exits CODE PROGRAM [ARG...]
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM [ARG...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	err = ts.Exec(args[1], args[2:]...)
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("ended with %d, and should with %d", got, want)
	}
}

// await runs a program again and again until its standard output matches, whatever its exit code. The program has the
// folder of the script, and the environment of the tests:
//
//	await REGEXP PROGRAM [ARG...]
func await(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: await REGEXP PROGRAM [ARG...]")
	}
	const patience = 30 * time.Second // a broker may start, and a plugin be started again
	want, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	cmd := func() (string, string) {
		var stdout, stderr strings.Builder
		path, err := exec.LookPath(args[1])
		ts.Check(err)
		c := exec.Command(path, args[2:]...)
		c.Dir, c.Stdout, c.Stderr = ts.MkAbs("."), &stdout, &stderr
		_ = c.Run() // what it has printed counts
		return stdout.String(), stderr.String()
	}
	var stdout, stderr string
	for start := time.Now(); time.Since(start) < patience; time.Sleep(100 * time.Millisecond) {
		if stdout, stderr = cmd(); want.MatchString(stdout) {
			return
		}
	}
	ts.Fatalf("no match for %q within %s; it said last:\n%s%s", args[0], patience, stdout, stderr)
}

// expand replaces $NAME in files, for the names that are in the environment:
//
//	expand FILE...
func expand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: expand FILE...")
	}
	name := regexp.MustCompile(`\$[A-Z]+`)
	for _, file := range args {
		text := name.ReplaceAllStringFunc(ts.ReadFile(file), func(s string) string {
			if v := ts.Getenv(s[1:]); v != "" {
				return v
			}
			return s
		})
		ts.Check(os.WriteFile(ts.MkAbs(file), []byte(text), 0o600))
	}
}

// listen takes an address until the script ends, as another program would:
//
//	listen ADDRESS
func listen(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: listen ADDRESS")
	}
	l, err := net.Listen("tcp", args[0])
	ts.Check(err)
	ts.Defer(func() { _ = l.Close() })
}

// signalProcess sends a signal to the process whose id is in a file, which is waited for:
//
//	signal HUP|TERM|KILL FILE
func signalProcess(ts *testscript.TestScript, neg bool, args []string) {
	signals := map[string]syscall.Signal{"HUP": syscall.SIGHUP, "TERM": syscall.SIGTERM, "KILL": syscall.SIGKILL}
	if neg || len(args) != 2 || signals[args[0]] == 0 {
		ts.Fatalf("usage: signal HUP|TERM|KILL FILE")
	}
	pid, err := strconv.Atoi(strings.TrimSpace(ts.ReadFile(args[1])))
	ts.Check(err)
	if err := syscall.Kill(pid, signals[args[0]]); err != nil {
		ts.Fatalf("process %d: %v", pid, err)
	}
}

// TestLogsAreForPeople: durations are not counted in nanoseconds, and text has no more of a time than is needed.
func TestLogsAreForPeople(t *testing.T) {
	for format, want := range map[string]string{
		"json": `"retry_in":"1.5s"`,
		"text": `retry_in=1.5s`,
	} {
		var out strings.Builder
		a := &app{stderr: &out, logFormat: format}
		log, err := a.logger()
		if err != nil {
			t.Fatal(err)
		}
		log.Info("waits", "retry_in", 1500*time.Millisecond)
		if !strings.Contains(out.String(), want) {
			t.Errorf("%s: %s has no %s", format, out.String(), want)
		}
	}
	if _, err := (&app{logFormat: "xml"}).logger(); err == nil {
		t.Error("a format that there is not was taken")
	}
}
