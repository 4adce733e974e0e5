package discovery_test

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flogate/flogate/core/broker"
	"github.com/flogate/flogate/core/discovery"
	"github.com/flogate/flogate/core/transport"
	"github.com/flogate/flogate/core/transport/transporttest"
)

// stage is a broker in memory for announcers, in a bubble of virtual time.
type stage struct {
	*transporttest.Memory
	broker *broker.Broker
	log    *lines
}

func newStage(t *testing.T) *stage {
	t.Helper()
	s := &stage{Memory: transporttest.NewMemory(), log: new(lines)}
	s.broker = broker.New(broker.Config{
		Name:    hall.Broker,
		Request: transport.ConnectRequest{Name: "test", Config: json.RawMessage(`{}`)},
		Driver:  func(context.Context) (transport.Driver, error) { return s.Driver(), nil },
	})
	background(t, s.broker.Run)
	return s
}

func (s *stage) open(ctx context.Context) (transport.Publisher, error) {
	conn, err := s.broker.Conn(ctx)
	if err != nil {
		return nil, err
	}
	return conn.Publish(ctx, transport.Sink{Name: "announcements", Address: "fbp"})
}

func (s *stage) announce(t *testing.T, a discovery.Announcer) (stop func()) {
	t.Helper()
	a.Open, a.Log = s.open, s.log.log()
	stop = background(t, a.Run)
	synctest.Wait()
	return stop
}

func (s *stage) announced() int { return len(s.PublishedTo("fbp")) }

func TestForeignParticipantsAreAnnouncedAgainAndAgain(t *testing.T) {
	for name, tt := range map[string]struct {
		announcer discovery.Announcer
		period    time.Duration
		ttl       time.Duration
	}{
		"by default":       {discovery.Announcer{Definition: define("a1", "a")}, 27_272_727_272, 3 * time.Minute},
		"by its heartbeat": {discovery.Announcer{Definition: define("a1", "a", beat(22*time.Second))}, 10 * time.Second, 66 * time.Second},
		"as it is told":    {discovery.Announcer{Definition: define("a1", "a"), Every: 5 * time.Minute}, 5 * time.Minute, 15 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t)
				stop := s.announce(t, tt.announcer)
				for n := 1; n < 5; n++ {
					if got := s.announced(); got != n {
						t.Fatalf("announced %d times after %d periods", got, n-1)
					}
					time.Sleep(tt.period - time.Millisecond)
					synctest.Wait()
					if got := s.announced(); got != n {
						t.Fatalf("announced %d times before %d periods", got, n)
					}
					time.Sleep(time.Millisecond + time.Microsecond)
					synctest.Wait()
				}
				msg := s.PublishedTo("fbp")[0]
				if def := parse(t, msg.Body); def.ID != "a1" || msg.TTL != tt.ttl || msg.ContentType != "application/json" {
					t.Errorf("announced as %+v: %s", msg, msg.Body)
				}
				stop()
				if s.Connections() != 1 {
					t.Errorf("%d connections: the announcer closes its publisher only", s.Connections())
				}
			})
		})
	}
}

func TestAnnouncedAtOnceWhenTheBrokerIsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		s.announce(t, discovery.Announcer{Definition: define("a1", "a"), Every: time.Hour})
		for n := 1; n <= 10; n++ {
			if got := s.announced(); got != n {
				t.Fatalf("announced %d times; want %d", got, n)
			}
			s.RefuseConnections(errors.New("the broker is down"))
			s.KillConnections("killed")
			time.Sleep(time.Minute)
			s.RefuseConnections(nil)
			time.Sleep(10 * time.Second) // the longest wait between two attempts, twice
			synctest.Wait()
		}
	})
}

func TestRefusedAnnouncementIsLoggedOnceAndTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		s.Refuse("fbp", errors.New("forbidden"))
		s.announce(t, discovery.Announcer{Definition: define("a1", "a")})
		time.Sleep(time.Hour)
		if n := s.log.count("forbidden"); n != 1 {
			t.Errorf("logged %d times:\n%s", n, s.log)
		}
		s.Refuse("fbp", nil)
		time.Sleep(time.Minute)
		if s.announced() == 0 {
			t.Error("not announced when it was allowed")
		}
	})
}

func TestAnnouncerEndsWhileTheBrokerIsStuck(t *testing.T) {
	for name, spoil := range map[string]func(*stage){
		"no connection": func(s *stage) { s.RefuseConnections(errors.New("down")); s.KillConnections("killed") },
		"blocked":       func(s *stage) { s.Block("low on memory") },
		"stalled":       func(s *stage) { s.Stall() },
		"silent":        func(s *stage) { s.Blackhole() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t)
				stop := s.announce(t, discovery.Announcer{Definition: define("a1", "a")})
				spoil(s)
				time.Sleep(time.Minute)
				began := time.Now()
				stop()
				if took := time.Since(began); took > 5*time.Second {
					t.Errorf("took %v", took)
				}
			})
		})
	}
}

func TestAddressThatCannotBePublishedToIsLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := new(lines)
		tries := 0
		stop := background(t, discovery.Announcer{Definition: define("a1", "a"), Log: log.log(), Open: func(context.Context) (transport.Publisher, error) {
			tries++
			return nil, transport.Permanentf("fbp: forbidden")
		}}.Run)
		time.Sleep(time.Hour)
		stop()
		if n := log.count("forbidden"); n != 1 || tries < 100 || tries > 3600 {
			t.Errorf("logged %d times for %d tries:\n%s", n, tries, log)
		}
	})
}

func TestBadDefinitionIsAnErrorAtOnce(t *testing.T) {
	err := discovery.Announcer{Definition: define("", "a")}.Run(t.Context())
	if err == nil || err.Error() != `participant "": payload: id is empty` {
		t.Errorf("%v", err)
	}
}

func TestAnnouncedParticipantIsHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		a := &stage{Memory: s.Memory, broker: s.broker, log: s.log}
		stop := a.announce(t, discovery.Announcer{Definition: define("a1", "a", beat(20*time.Second))})
		time.Sleep(time.Hour)
		expect(t, "as long as it is announced", there(s.registry), "a1 as a#1 on mqtt.hall")
		stop()
		time.Sleep(62 * time.Second)
		expect(t, "when it is not any more", there(s.registry), "")
	})
}
