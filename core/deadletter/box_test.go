package deadletter_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/flogate/flogate/core/deadletter"
	"github.com/flogate/flogate/core/transport"
	"github.com/flogate/flogate/core/transport/transporttest"
)

const (
	idle   = 150 * time.Millisecond
	inTime = 10 * time.Second
)

func connect(t *testing.T, driver transport.Driver) transport.Conn {
	t.Helper()
	conn, err := driver.Connect(t.Context(), transport.ConnectRequest{Name: "site/memory.m", Config: json.RawMessage(`{}`)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	return conn
}

func publisher(t *testing.T, conn transport.Conn, address string) transport.Publisher {
	t.Helper()
	pub, err := conn.Publish(t.Context(), transport.Sink{Name: address, Address: address})
	if err != nil {
		t.Fatal(err)
	}
	return pub
}

// letters are dead letters with the bodies 1 to n.
func letters(n int, headerless bool) []transport.Message {
	var msgs []transport.Message
	for i := range n {
		l := deadletter.Letter{
			Message: transport.Message{Body: []byte(strconv.Itoa(i + 1)), Address: "in"},
			Cause:   "first", Edge: "a.out -> b.in", Time: time.Unix(1, 0), Attempts: 1,
		}
		msgs = append(msgs, l.Pack(headerless))
	}
	return msgs
}

func openBox(t *testing.T, conn transport.Conn, address string, most int) *deadletter.Box {
	t.Helper()
	box, err := deadletter.OpenBox(t.Context(), conn, deadletter.Place{Address: address}, most)
	if err != nil {
		t.Fatal(err)
	}
	return box
}

// look returns the bodies of what is in a box, takes those out that are wanted, and closes it.
func look(t *testing.T, conn transport.Conn, address string, most int, take ...int) (bodies []string, full bool) {
	t.Helper()
	box := openBox(t, conn, address, most)
	for {
		items, err := box.Next(t.Context(), idle)
		if err != nil {
			t.Fatal(err)
		}
		if len(items) == 0 {
			break
		}
		for _, item := range items {
			bodies = append(bodies, string(item.Message.Body))
			if slices.Contains(take, item.N) {
				if err := box.Take(t.Context(), item); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	full = box.Full()
	if err := box.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	return bodies, full
}

func TestLookingLeavesEverythingWhereItWas(t *testing.T) {
	m := transporttest.NewMemory()
	conn := connect(t, m.Driver())
	m.Send("queue/dead", letters(200, false)...)
	var first []string
	for range 3 {
		got, full := look(t, conn, "queue/dead", 1000)
		if len(got) != 200 || got[0] != "1" || got[199] != "200" || full {
			t.Fatalf("%d letters, full %v: %v", len(got), full, got)
		}
		if first != nil && !slices.Equal(got, first) {
			t.Errorf("another order: %v", got)
		}
		first = got
	}
}

func TestABoxHandsOutNoMoreThanItWasOpenedFor(t *testing.T) {
	m := transporttest.NewMemory()
	conn := connect(t, m.Driver())
	m.Send("queue/dead", letters(200, false)...)
	got, full := look(t, conn, "queue/dead", 70)
	if len(got) != 70 || !full {
		t.Errorf("%d letters, full %v", len(got), full)
	}
}

func TestTakingOutOfTheMiddleKeepsTheRestInOrder(t *testing.T) {
	m := transporttest.NewMemory()
	conn := connect(t, m.Driver())
	m.Send("queue/dead", letters(5, false)...)
	look(t, conn, "queue/dead", 10, 2, 4)
	if got, _ := look(t, conn, "queue/dead", 10); !slices.Equal(got, []string{"1", "3", "5"}) {
		t.Errorf("left are %v", got)
	}
}

func TestWhatComesToATopicIsKeptForTheNextReader(t *testing.T) {
	m := transporttest.NewMemory()
	gateway, cli := connect(t, m.Driver()), connect(t, m.Driver())
	if err := deadletter.Keep(t.Context(), gateway, deadletter.Reader("dead", nil)); err != nil {
		t.Fatal(err)
	}
	m.Send("dead", letters(3, true)...)
	if got, _ := look(t, cli, "dead", 10); !slices.Equal(got, []string{"1", "2", "3"}) {
		t.Errorf("kept are %v", got)
	}
}

// redriving redrives everything to queue/out.
func redriving(t *testing.T, dead, sink transport.Conn) (*deadletter.Redriving, *[]error) {
	t.Helper()
	var done []error
	var out transport.Publisher
	return &deadletter.Redriving{
		Box: openBox(t, dead, "queue/dead", 100), Idle: idle, Timeout: inTime,
		Choose: func(deadletter.Item) bool { return true },
		Sink: func(context.Context, deadletter.Letter) (transport.Publisher, error) {
			if out == nil {
				out = publisher(t, sink, "queue/out")
			}
			return out, nil
		},
		Back: func(context.Context) (transport.Publisher, error) { return publisher(t, dead, "queue/dead"), nil },
		Done: func(_ deadletter.Item, err error) { done = append(done, err) },
	}, &done
}

func bodies(msgs []transport.Message) (list []string) {
	for _, m := range msgs {
		list = append(list, string(m.Body))
	}
	return list
}

func TestRedrivenLettersAreTheirMessagesAgainAndGone(t *testing.T) {
	m := transporttest.NewMemory()
	conn := connect(t, m.Driver())
	m.Send("queue/dead", letters(100, false)...)
	r, done := redriving(t, conn, conn)
	if err := r.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := m.PublishedTo("queue/out")
	if len(got) != 100 || len(*done) != 100 || m.Held("queue/dead") != 0 {
		t.Fatalf("%d published, %d done, %d left", len(got), len(*done), m.Held("queue/dead"))
	}
	for i, msg := range got {
		if string(msg.Body) != strconv.Itoa(i+1) || len(msg.Headers) != 0 {
			t.Errorf("message %d is %q with headers %v", i+1, msg.Body, msg.Headers)
		}
	}
}

func TestRefusedAgainStaysWithTheNewCause(t *testing.T) {
	m := transporttest.NewMemory()
	conn := connect(t, m.Driver())
	m.Send("queue/dead", letters(3, false)...)
	m.Refuse("queue/out", errors.New("still not"))
	r, done := redriving(t, conn, conn)
	if err := r.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := r.Box.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(*done) != 3 || (*done)[0] == nil || (*done)[0].Error() != "still not" {
		t.Errorf("reported %v", *done)
	}
	box := openBox(t, conn, "queue/dead", 10)
	items, err := box.Next(t.Context(), inTime)
	if err != nil || len(items) != 3 {
		t.Fatalf("%d letters, %v", len(items), err)
	}
	for i, item := range items {
		if string(item.Message.Body) != strconv.Itoa(i+1) || item.Cause != "still not" || item.Attempts != 2 || item.Edge != "a.out -> b.in" ||
			item.Message.Address != "in" || time.Since(item.Time) > time.Minute {
			t.Errorf("letter %d is %+v", i+1, item)
		}
	}
}

// Whatever is cut off at whatever moment: each message is in its sink or in its place, and doubled at most where it was cut.
func TestRedrivingThatIsCutShortLosesNothing(t *testing.T) {
	const n = 10
	for cut := range n {
		for name, fault := range map[string]transporttest.Fault{
			"confirmed and not taken out": {At: transporttest.AtSettle, Do: transporttest.Lose, After: cut},
			"confirmed and not heard of":  {At: transporttest.AtConfirm, Do: transporttest.Lose, After: cut},
			"published and not heard of":  {At: transporttest.AtPublish, Do: transporttest.Lose, After: cut},
		} {
			t.Run(name+" "+strconv.Itoa(cut), func(t *testing.T) {
				m := transporttest.NewMemory()
				faults := transporttest.Faults(m.Driver())
				m.Send("queue/dead", letters(n, false)...)
				faults.Inject(fault)
				conn := connect(t, faults)
				r, _ := redriving(t, conn, conn)
				if err := r.Run(t.Context()); err == nil {
					t.Fatal("the cut was not noticed")
				}
				again := connect(t, m.Driver())
				r, _ = redriving(t, again, again)
				if err := r.Run(t.Context()); err != nil {
					t.Fatal(err)
				}
				got := bodies(m.PublishedTo("queue/out"))
				if len(got) > n+1 || m.Held("queue/dead") != 0 {
					t.Errorf("%d left, published %v", m.Held("queue/dead"), got)
				}
				if !slices.Equal(slices.Compact(got), bodies(openAll(letters(n, false)))) {
					t.Errorf("published %v", got)
				}
			})
		}
	}
}

func openAll(msgs []transport.Message) (list []transport.Message) {
	for _, m := range msgs {
		l, _ := deadletter.Open(m)
		list = append(list, l.Message)
	}
	return list
}

func TestASinkThatIsAwayLeavesTheLetters(t *testing.T) {
	m := transporttest.NewMemory()
	conn := connect(t, m.Driver())
	m.Send("queue/dead", letters(3, false)...)
	r, _ := redriving(t, conn, conn)
	r.Sink = func(context.Context, deadletter.Letter) (transport.Publisher, error) { return nil, errors.New("away") }
	if err := r.Run(t.Context()); err == nil {
		t.Error("no error")
	}
	if err := r.Box.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, _ := look(t, conn, "queue/dead", 10); len(got) != 3 {
		t.Errorf("left are %v", got)
	}
}
