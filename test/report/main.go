// Command report runs go test and says what came of it, in few lines:
//
//	go run ./test/report [-in folder]... -- [argument of go test]...
//
// Each -in is a pattern of folders that have a module, and the tests run in all
// of them; without any, in the current one. What failed is printed in full. The
// exit code is 0 if nothing failed. With FLOGATE_TEST_COUNTS set, a line
// "passed failed skipped" is appended to the file of that name.
package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
)

const envCounts = "FLOGATE_TEST_COUNTS"

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("report", flag.ContinueOnError)
	flags.SetOutput(stderr)
	var patterns []string
	flags.Func("in", "a `pattern` of folders with a module", func(p string) error {
		patterns = append(patterns, p)
		return nil
	})
	if err := flags.Parse(args); err != nil {
		return 2
	}
	folders, err := modules(patterns)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	// The terminal has sent it to go test as well: wait for that. Ignoring it
	// would make go test ignore it too.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGINT)

	r := newReport(stdout)
	var failed error
	for _, folder := range folders {
		failed = errors.Join(failed, r.test(folder, flags.Args(), stderr))
	}
	fmt.Fprintln(stdout, r.counts)
	if err := r.counts.appendTo(os.Getenv(envCounts)); err != nil {
		failed = errors.Join(failed, err)
	}
	if failed != nil {
		fmt.Fprintln(stderr, failed)
		return 1
	}
	return 0
}

// modules returns the folders that the patterns name and that have a go.mod.
func modules(patterns []string) ([]string, error) {
	if len(patterns) == 0 {
		return []string{"."}, nil
	}
	var folders []string
	for _, p := range patterns {
		files, err := filepath.Glob(filepath.Join(p, "go.mod"))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p, err)
		}
		for _, f := range files {
			folders = append(folders, filepath.Dir(f))
		}
	}
	if len(folders) == 0 {
		return nil, fmt.Errorf("no module in %v", patterns)
	}
	return folders, nil
}

// counts is how many tests ended how; subtests are tests too.
type counts struct{ passed, failed, skipped int }

func (c counts) String() string {
	return fmt.Sprintf("%d passed, %d failed, %d skipped", c.passed, c.failed, c.skipped)
}

func (c counts) appendTo(path string) error {
	if path == "" {
		return nil
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, c.passed, c.failed, c.skipped)
	return errors.Join(err, f.Close())
}

// event is a line of go test -json.
type event struct {
	Action  string
	Package string
	Test    string
	Output  string
	Elapsed float64 // seconds
}

// key names a test, or with an empty test what belongs to the package.
type key struct{ pkg, test string }

// report follows the events of one or more runs of go test.
type report struct {
	counts counts
	out    io.Writer
	output map[key][]string // of what has not ended yet
	bad    map[string]bool  // packages with a failed test
}

func newReport(out io.Writer) *report {
	return &report{out: out, output: make(map[key][]string), bad: make(map[string]bool)}
}

// test runs go test in a folder and returns why it failed.
func (r *report) test(folder string, args []string, stderr io.Writer) error {
	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	cmd.Dir, cmd.Stderr = folder, stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	before := r.counts.failed
	err = errors.Join(r.read(stdout), cmd.Wait())
	if err == nil {
		return nil
	}
	if r.counts.failed == before {
		r.counts.failed++ // something has: it must not say that nothing did
	}
	return fmt.Errorf("go test in %s: %w", folder, err)
}

func (r *report) read(stdout io.Reader) error {
	lines := bufio.NewReader(stdout)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			r.line(line)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// line takes a line of go test's output, which is not always JSON.
func (r *report) line(line []byte) {
	var e event
	if err := json.Unmarshal(line, &e); err != nil {
		fmt.Fprintf(r.out, "%s", line)
		return
	}
	k := key{e.Package, e.Test}
	switch e.Action {
	case "run":
		r.output[k] = []string{}
	case "output":
		r.output[k] = append(r.output[k], e.Output)
	case "build-output":
		fmt.Fprint(r.out, e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			r.endPackage(e)
		} else {
			r.endTest(k, e.Action)
		}
	}
}

func (r *report) endTest(k key, action string) {
	switch action {
	case "pass":
		r.counts.passed++
	case "skip":
		r.counts.skipped++
		fmt.Fprintf(r.out, "skip %s %s\n", k.pkg, k.test)
	case "fail":
		r.counts.failed++
		r.bad[k.pkg] = true
		r.show(k)
	}
	delete(r.output, k)
}

func (r *report) endPackage(e event) {
	if e.Action == "fail" {
		for k := range r.output {
			if k.pkg == e.Package && k.test != "" { // began and did not end
				r.endTest(k, "fail")
			}
		}
		if !r.bad[e.Package] { // it did not build, or a check of its TestMain failed
			r.counts.failed++
		}
		r.show(key{pkg: e.Package})
	}
	delete(r.output, key{pkg: e.Package})
	word := map[string]string{"pass": "ok  ", "skip": "none", "fail": "FAIL"}
	fmt.Fprintf(r.out, "%s %s %.1fs\n", cmp.Or(word[e.Action], e.Action), e.Package, e.Elapsed)
}

func (r *report) show(k key) {
	for _, text := range r.output[k] {
		fmt.Fprint(r.out, text)
	}
}
