package library

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
)

const (
	// maxTemplate bounds a template after its variables are in it, in bytes: variables of variables can stand for more
	// than fits into memory.
	maxTemplate = 64 << 10
	// maxWord is the longest word that Linux hands to a program, in bytes (MAX_ARG_STRLEN without its final zero).
	maxWord = 128<<10 - 1
)

const alphanumeric = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

// The markers that stand for what is known only when a component is started.
const (
	markRole      = "ROLE"
	markFile      = "FILENAME"
	markComponent = "COMPONENT"
	markName      = "COMPONENTNAME"
	markIIPs      = "IIPS"
)

// markers are those that no variable may be named after.
func markers() []string {
	return []string{markRole, markFile, markComponent, markName, markIIPs}
}

// template is a command with markers in it, split into words. Values are put in after the splitting, so that each stays
// within its word whatever is in it.
type template struct {
	words [][]piece
	// shell is the first thing in it that means something only to a shell.
	shell string
}

// piece is a part of a word: text, or a marker that stands for a value.
type piece struct {
	raw    string // as a shell would have to read it
	text   string // what it says
	marker string // the marker's name; text is empty then
	quote  byte   // the quotes around a marker: ' or ", or 0
}

// scanner reads a template. Variables are the author's own text, so they are read as if they stood there: one of them can
// be several words, or hold markers.
type scanner struct {
	variables map[string]string
	frames    []frame // the template, and the variables that are being read within each other
	read      int
	quote     byte
	words     [][]piece
	word      []piece
	within    bool // a word has begun, maybe an empty one
	plain     bool // it has no backslashes yet
	shell     string
}

type frame struct {
	name, rest string
}

// parseTemplate splits a template as a shell would: blanks separate words, within '…' everything is as it is, within "…"
// a backslash takes \, ", $, ` and # as they are, and elsewhere it takes any character so. The keys of variables are in
// capitals.
func parseTemplate(src string, variables map[string]string) (template, error) {
	s := scanner{variables: variables, frames: []frame{{rest: src}}}
	for {
		for len(s.frames) > 1 && s.top().rest == "" {
			s.frames = s.frames[:len(s.frames)-1]
		}
		if s.top().rest == "" {
			break
		}
		if err := s.step(); err != nil {
			return template{}, err
		}
	}
	if s.quote != 0 {
		return template{}, fmt.Errorf("a %c is not closed", s.quote)
	}
	s.end()
	t := template{words: s.words, shell: s.shell}
	if len(t.words) == 0 {
		return template{}, errors.New("it is empty")
	}
	return t, t.checkScripts()
}

func (s *scanner) top() *frame { return &s.frames[len(s.frames)-1] }

// take moves n bytes on.
func (s *scanner) take(n int) (string, error) {
	if s.read += n; s.read > maxTemplate {
		return "", fmt.Errorf("with its variables it has more than %d KiB", maxTemplate>>10)
	}
	top := s.top()
	taken := top.rest[:n]
	top.rest = top.rest[n:]
	return taken, nil
}

// step reads one character, one pair of a backslash and what it takes, or one marker.
func (s *scanner) step() error {
	rest := s.top().rest
	c := rest[0]
	if c == 0 {
		return errors.New("it has a zero byte, which no program can be given")
	}
	if c == '#' {
		if name := s.marker(rest[1:]); name != "" {
			return s.mark(name)
		}
	}
	n := 1
	if c == '\\' && s.quote != '\'' {
		if len(rest) == 1 {
			return errors.New("nothing follows its last backslash")
		}
		n = 2
	}
	raw, err := s.take(n)
	if err != nil {
		return err
	}
	switch {
	case n == 2:
		s.escaped(raw)
	case c == s.quote:
		s.quote = 0
		s.add(raw, "")
	case s.quote == 0 && (c == '\'' || c == '"'):
		s.add(raw, "")
		s.quote = c
	case s.quote == 0 && strings.ContainsRune(" \t\r\n", rune(c)):
		s.end()
	default:
		if s.quote != '\'' && needsShell(rest) {
			s.needShell(rest[:min(len(rest), 20)])
		}
		if c == '#' && !s.within {
			raw = `\#` // no comment
		}
		s.add(raw, string([]byte{c}))
	}
	return nil
}

// escaped reads a backslash and what follows it.
func (s *scanner) escaped(raw string) {
	switch c := raw[1]; {
	case c == '\n': // the line goes on
	case s.quote == '"' && c == '#':
		s.add("#", "#") // a shell would keep the backslash
	case s.quote == '"' && !strings.ContainsRune("\\\"$`", rune(c)):
		s.add(raw, raw)
	default:
		s.add(raw, raw[1:])
		s.plain = false
	}
}

// marker returns the longest name of a marker that text begins with.
func (s *scanner) marker(text string) string {
	longest := ""
	for _, name := range markers() {
		if len(name) > len(longest) && strings.HasPrefix(text, name) {
			longest = name
		}
	}
	for name := range s.variables {
		if len(name) > len(longest) && strings.HasPrefix(text, name) {
			longest = name
		}
	}
	return longest
}

// mark reads a marker: a variable becomes what is read next, any other a piece of the word.
func (s *scanner) mark(name string) error {
	raw, err := s.take(1 + len(name))
	if err != nil {
		return err
	}
	value, ok := s.variables[name]
	if !ok {
		s.begin()
		s.word = append(s.word, piece{raw: raw, marker: name, quote: s.quote})
		return nil
	}
	for i, f := range s.frames {
		if f.name == name {
			var circle strings.Builder
			for _, f := range s.frames[i:] {
				circle.WriteString("#" + f.name + " → ")
			}
			return fmt.Errorf("its variables go in a circle: %s#%s", circle.String(), name)
		}
	}
	s.frames = append(s.frames, frame{name: name, rest: value})
	return nil
}

func (s *scanner) begin() {
	if !s.within {
		s.within, s.plain = true, true
	}
}

// add puts text into the word.
func (s *scanner) add(raw, text string) {
	s.begin()
	if n := len(s.word); n > 0 && s.word[n-1].marker == "" {
		s.word[n-1].raw += raw
		s.word[n-1].text += text
		return
	}
	s.word = append(s.word, piece{raw: raw, text: text})
}

// end ends the word.
func (s *scanner) end() {
	if !s.within {
		return
	}
	raw := template{words: [][]piece{s.word}}.String()
	if s.plain && (operator(raw) || len(s.words) == 0 && assigns(raw)) {
		s.needShell(raw)
	}
	s.words = append(s.words, s.word)
	s.word, s.within = nil, false
}

func (s *scanner) needShell(what string) {
	if s.shell == "" {
		s.shell = what
	}
}

// needsShell reports whether text begins with what a shell would replace.
func needsShell(text string) bool {
	if text[0] == '`' {
		return true
	}
	return text[0] == '$' && len(text) > 1 && (text[1] == '{' || text[1] == '(' || text[1] == '_' ||
		'a' <= text[1]|0x20 && text[1]|0x20 <= 'z')
}

// operator reports whether a word, as it stands, is one that a shell would not hand to the program.
func operator(word string) bool {
	redirect := strings.TrimLeft(word, "0123456789")
	return slices.Contains([]string{"|", "||", "&", "&&"}, word) || strings.HasSuffix(word, ";") ||
		strings.HasPrefix(redirect, "<") || strings.HasPrefix(redirect, ">")
}

// assigns reports whether a word, as it stands, is NAME=value.
func assigns(word string) bool {
	name, _, ok := strings.Cut(word, "=")
	return ok && name != "" && strings.Trim(name, alphanumeric+"_") == ""
}

// checkScripts refuses values inside of a shell's script, where they would be read as code: roles and initial packets come
// from graphs, which others may be allowed to change.
func (t template) checkScripts() error {
	shells := []string{"sh", "ash", "bash", "dash", "ksh", "zsh", "fish"}
	for i, w := range t.words {
		if !slices.Contains(shells, path.Base(text(w))) {
			continue
		}
		for j := i + 1; j < len(t.words); j++ {
			option := text(t.words[j])
			if !strings.HasPrefix(option, "-") {
				break
			}
			if strings.HasPrefix(option, "--") || !strings.HasSuffix(option, "c") || j+1 == len(t.words) {
				continue
			}
			for _, p := range t.words[j+1] {
				if p.marker != "" {
					return fmt.Errorf(`#%s in a script would be run as code: write "$1" there, and #%[1]s behind it, as in %s -c 'echo "$1"' - #%[1]s`,
						p.marker, text(w))
				}
			}
		}
	}
	return nil
}

// text returns what a word says; markers say nothing yet.
func text(word []piece) string {
	return template{words: [][]piece{word}}.join(func(p piece) string { return p.text })
}

// uses reports whether a marker is in the template.
func (t template) uses(marker string) bool {
	return slices.ContainsFunc(t.words, func(w []piece) bool {
		return slices.ContainsFunc(w, func(p piece) bool { return p.marker == marker })
	})
}

// String returns the template with its variables in it.
func (t template) String() string {
	return t.join(func(p piece) string { return p.raw })
}

// script returns the command as a line for a shell, with each value quoted as its place needs it.
func (t template) script(values map[string]string) string {
	return t.join(func(p piece) string {
		value := values[p.marker]
		switch {
		case p.marker == "":
			return p.raw
		case p.quote == '\'':
			return strings.ReplaceAll(value, "'", `'\''`)
		case p.quote == '"':
			return strings.NewReplacer(`\`, `\\`, `"`, `\"`, "$", `\$`, "`", "\\`").Replace(value)
		case value != "" && strings.Trim(value, alphanumeric+"_@%+=:,./-") == "":
			return value
		}
		return "'" + strings.ReplaceAll(value, "'", `'\''`) + "'"
	})
}

func (t template) join(show func(piece) string) string {
	var b strings.Builder
	for i, w := range t.words {
		if i > 0 {
			b.WriteByte(' ')
		}
		for _, p := range w {
			b.WriteString(show(p))
		}
	}
	return b.String()
}

// command returns the program and its arguments.
func (t template) command(values map[string]string) ([]string, error) {
	if t.shell != "" {
		return nil, fmt.Errorf("%q is for a shell, and none is run: write sh -c '…', or quote it if it is meant as it is", t.shell)
	}
	command := make([]string, len(t.words))
	for i, w := range t.words {
		var b strings.Builder
		for _, p := range w {
			if p.marker == "" {
				b.WriteString(p.text)
			} else {
				b.WriteString(values[p.marker])
			}
		}
		if b.Len() > maxWord {
			return nil, fmt.Errorf("its argument %d has %d KiB, and a program can be given no more than %d", i, b.Len()>>10, maxWord>>10)
		}
		command[i] = b.String()
	}
	if command[0] == "" {
		return nil, errors.New("the program's name is empty")
	}
	return command, nil
}
