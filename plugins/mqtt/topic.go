package mqtt

import (
	"errors"
	"strings"
	"unicode/utf8"
)

var (
	errTopicEmpty    = errors.New("a topic must not be empty")
	errTopicLong     = errors.New("a topic has at most 65535 bytes")
	errTopicText     = errors.New("a topic must be UTF-8 text without U+0000")
	errTopicWildcard = errors.New("+ and # are for sources: a message goes to one topic")
	errTopicShare    = errors.New("$share/ is for sources: a message goes to one topic")
	errTopicSys      = errors.New("topics under $SYS/ are the broker's own")
	errFilterHash    = errors.New("# stands for all levels from there on: it must be a whole level and the last one")
	errFilterPlus    = errors.New("+ stands for one level: it must be a whole level")
	errFilterShare   = errors.New("a shared subscription is $share/group/filter, with a group without + and #")
)

// validateTopic says why no message can be published to topic, or nil.
func validateTopic(topic string) error {
	switch err := validateString(topic); {
	case err != nil:
		return err
	case strings.ContainsAny(topic, "+#"):
		return errTopicWildcard
	case isShared(topic):
		return errTopicShare
	case strings.HasPrefix(topic, "$SYS/"):
		return errTopicSys
	}
	return nil
}

// validateFilter says why nothing can be subscribed to filter, or nil.
func validateFilter(filter string) error {
	if err := validateString(filter); err != nil {
		return err
	}
	if isShared(filter) {
		group, plain, found := strings.Cut(filter[len(sharePrefix):], "/")
		if !found || group == "" || plain == "" || strings.ContainsAny(group, "+#") {
			return errFilterShare
		}
		filter = plain
	}
	for rest, more := filter, true; more; {
		var level string
		level, rest, more = strings.Cut(rest, "/")
		if strings.Contains(level, "#") && (level != "#" || more) {
			return errFilterHash
		}
		if strings.Contains(level, "+") && level != "+" {
			return errFilterPlus
		}
	}
	return nil
}

func validateString(s string) error {
	switch {
	case s == "":
		return errTopicEmpty
	case len(s) > maxString:
		return errTopicLong
	case !utf8.ValidString(s) || strings.IndexByte(s, 0) >= 0:
		return errTopicText
	}
	return nil
}

// matches reports whether a subscription to filter gets what is published to topic.
func matches(filter, topic string) bool {
	filter = plainFilter(filter)
	if strings.HasPrefix(topic, "$") && (strings.HasPrefix(filter, "+") || strings.HasPrefix(filter, "#")) {
		return false // a wildcard in front does not see the broker's own topics
	}
	for {
		want, moreWant, deeper := strings.Cut(filter, "/")
		if want == "#" {
			return true
		}
		level, moreTopic, longer := strings.Cut(topic, "/")
		if want != "+" && want != level {
			return false
		}
		switch {
		case !deeper && !longer:
			return true
		case deeper && !longer:
			return moreWant == "#" // "a/#" is also for "a"
		case !deeper:
			return false
		}
		filter, topic = moreWant, moreTopic
	}
}
