package nats

import (
	"errors"
	"fmt"
	"strings"
)

// maxSubject bounds a subject in bytes. A server ends a connection on which a protocol line is longer than 4096 bytes, and
// a line may have two subjects.
const maxSubject = 1900

// checkSubject says what is wrong with a subject. filter allows the wildcards * and >.
func checkSubject(subject string, filter bool) error {
	if subject == "" {
		return errors.New("a subject is missing")
	}
	if len(subject) > maxSubject {
		return fmt.Errorf("subject %.40q… is longer than %d bytes", subject, maxSubject)
	}
	if strings.ContainsFunc(subject, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return fmt.Errorf("subject %q has a space or a control character: NATS allows none", subject)
	}
	tokens := strings.Split(subject, ".")
	for i, token := range tokens {
		switch {
		case token == "":
			return fmt.Errorf("subject %q has an empty part: parts are separated by single dots", subject)
		case token != "*" && token != ">":
		case !filter:
			return fmt.Errorf("subject %q has a wildcard: only a source may use * and >", subject)
		case token == ">" && i != len(tokens)-1:
			return fmt.Errorf("subject %q has parts after >: it stands for all the rest", subject)
		}
	}
	return nil
}

// validSubject reports whether a message can be published to subject.
func validSubject(subject string) bool { return checkSubject(subject, false) == nil }

// checkName says what is wrong with the name of a stream or a consumer.
func checkName(what, name string) error {
	if name == "" {
		return fmt.Errorf("a %s needs a name", what)
	}
	bad := func(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune(`.*>/\`, r) }
	if strings.ContainsFunc(name, bad) {
		return fmt.Errorf("%s name %q: spaces and . * > / \\ are not allowed", what, name)
	}
	return nil
}
