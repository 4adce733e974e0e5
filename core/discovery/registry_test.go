package discovery_test

import (
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/flogate/flogate/core/discovery"
)

var (
	epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	hall  = discovery.Place{Broker: "mqtt.hall", Address: "fbp"}
	cloud = discovery.Place{Broker: "amqp.cloud", Address: "fbp"}
)

// at returns a time some seconds after the epoch.
func at(seconds float64) time.Time { return epoch.Add(time.Duration(seconds * float64(time.Second))) }

func define(id, role string, change ...func(*discovery.Definition)) discovery.Definition {
	def := discovery.Definition{
		ID: id, Role: role, Component: "Test", Inports: []discovery.Port{{ID: "in", Type: "any", Queue: role + ".IN"}},
		Outports: []discovery.Port{},
	}
	for _, c := range change {
		c(&def)
	}
	return def
}

func beat(period time.Duration) func(*discovery.Definition) {
	return func(d *discovery.Definition) { d.Heartbeat = period }
}

func queue(name string) func(*discovery.Definition) {
	return func(d *discovery.Definition) { d.Inports[0].Queue = name }
}

func announcement(t testing.TB, def discovery.Definition) []byte {
	t.Helper()
	body, err := def.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// say lets somebody announce itself, and returns what has changed by it in words.
func say(t testing.TB, r *discovery.Registry, place discovery.Place, def discovery.Definition, now time.Time) string {
	t.Helper()
	changes, err := r.Take(place, announcement(t, def), now)
	if err != nil {
		t.Fatal(err)
	}
	return words(changes)
}

func words(changes []discovery.Change) string {
	var list []string
	for _, c := range changes {
		list = append(list, fmt.Sprintf("%s %s as %s#%d", c.Participant.Definition.ID, c.Kind, c.Participant.Definition.Role, c.Participant.Incarnation))
	}
	return strings.Join(list, ", ")
}

func expect(t testing.TB, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %q; want %q", what, got, want)
	}
}

// there says in words who is there and where.
func there(r *discovery.Registry) string {
	var list []string
	for _, p := range r.Snapshot() {
		var on []string
		for _, q := range p.On {
			on = append(on, q.Broker)
		}
		list = append(list, fmt.Sprintf("%s as %s#%d on %s", p.Definition.ID, p.Definition.Role, p.Incarnation, strings.Join(on, "+")))
	}
	return strings.Join(list, ", ")
}

func TestRepeatedAnnouncementsChangeNothingButWhenTheyWereHeard(t *testing.T) {
	r := discovery.NewRegistry(discovery.Config{})
	def := define("a1", "a")
	expect(t, "first", say(t, r, hall, def, at(0)), "a1 appeared as a#1")
	before := r.Snapshot()
	expect(t, "repeated", say(t, r, hall, def, at(30)), "")
	// The same in other words: the keys in another order.
	changes, err := r.Take(hall, []byte(`{"outports":[],"inports":[{"queue":"a.IN","id":"in"}],"component":"Test","role":"a","id":"a1"}`), at(40))
	if err != nil || changes != nil {
		t.Errorf("in other words: %v, %v; want nothing", changes, err)
	}
	expect(t, "back to the first words", say(t, r, hall, def, at(50)), "")
	after := r.Snapshot()
	ignored := cmpopts.IgnoreFields(discovery.Participant{}, "Last")
	if diff := cmp.Diff(before, after, ignored, cmpopts.IgnoreFields(discovery.Presence{}, "Last")); diff != "" {
		t.Errorf("changed: %s", diff)
	}
	if last := after[0].Last; !last.Equal(at(50)) || !after[0].On[0].Last.Equal(last) || !after[0].First.Equal(at(0)) {
		t.Errorf("first %v, last %v", after[0].First, last)
	}
	want := map[string]discovery.Counts{"mqtt.hall": {Messages: 4, Repeated: 1}}
	if diff := cmp.Diff(want, r.Counts()); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
}

func TestSeveralParticipantsShareARole(t *testing.T) {
	r := discovery.NewRegistry(discovery.Config{})
	expect(t, "first worker", say(t, r, hall, define("w1", "worker"), at(0)), "w1 appeared as worker#1")
	expect(t, "second worker", say(t, r, hall, define("w2", "worker"), at(1)), "w2 appeared as worker#2")
	expect(t, "all", there(r), "w1 as worker#1 on mqtt.hall, w2 as worker#2 on mqtt.hall")
	say(t, r, hall, define("w2", "worker"), at(500))
	expect(t, "gone", words(r.Expire(at(600))), "w1 left as worker#1")
	expect(t, "left", there(r), "w2 as worker#2 on mqtt.hall")
}

func TestParticipantOnTwoBrokersIsOne(t *testing.T) {
	r := discovery.NewRegistry(discovery.Config{})
	expect(t, "on one", say(t, r, hall, define("a1", "a"), at(0)), "a1 appeared as a#1")
	expect(t, "on both", say(t, r, cloud, define("a1", "a", queue("cloud.IN")), at(10)), "a1 changed as a#1")
	expect(t, "all", there(r), "a1 as a#1 on mqtt.hall+amqp.cloud")
	p := r.Snapshot()[0]
	if p.Definition.Inports[0].Queue != "a.IN" || p.On[1].Definition.Inports[0].Queue != "cloud.IN" {
		t.Errorf("definitions are mixed up: %+v", p)
	}
	if !p.First.Equal(at(0)) || !p.Last.Equal(at(10)) {
		t.Errorf("first %v, last %v", p.First, p.Last)
	}
	expect(t, "silent on one", words(r.Expire(at(605))), "a1 changed as a#1")
	p = r.Snapshot()[0]
	if len(p.On) != 1 || p.Definition.Inports[0].Queue != "cloud.IN" || !p.First.Equal(at(0)) {
		t.Errorf("still there: %+v", p)
	}
	expect(t, "back on the other", say(t, r, hall, define("a1", "a"), at(606)), "a1 changed as a#1")
	expect(t, "broker removed", words(r.RemoveBroker("amqp.cloud")), "a1 changed as a#1")
	expect(t, "silent on both", words(r.Expire(at(2000))), "a1 left as a#1")
}

func TestSameIDInAnotherRoleOnAnotherBrokerIsSomebodyElse(t *testing.T) {
	r := discovery.NewRegistry(discovery.Config{})
	say(t, r, hall, define("boxy4", "door"), at(0))
	expect(t, "other role", say(t, r, cloud, define("boxy4", "gate"), at(1)), "boxy4 appeared as gate#2")
	expect(t, "all", there(r), "boxy4 as door#1 on mqtt.hall, boxy4 as gate#2 on amqp.cloud")
}

func TestRoleCanBeChanged(t *testing.T) {
	r := discovery.NewRegistry(discovery.Config{})
	say(t, r, hall, define("a1", "a"), at(0))
	expect(t, "changed role", say(t, r, hall, define("a1", "b"), at(1)), "a1 left as a#1, a1 appeared as b#2")
	expect(t, "all", there(r), "a1 as b#2 on mqtt.hall")
}

func TestChangedPortsAreAChange(t *testing.T) {
	r := discovery.NewRegistry(discovery.Config{})
	say(t, r, hall, define("a1", "a"), at(0))
	expect(t, "ports", say(t, r, hall, define("a1", "a", queue("elsewhere")), at(1)), "a1 changed as a#1")
	if got := r.Snapshot()[0].Definition.Inports[0].Queue; got != "elsewhere" {
		t.Errorf("queue %q", got)
	}
	// The first words again are no repetition, although they were heard before.
	expect(t, "and back", say(t, r, hall, define("a1", "a"), at(2)), "a1 changed as a#1")
}

func TestSilentParticipantsAreGoneInTheirOwnTime(t *testing.T) {
	tests := []struct {
		name    string
		heart   time.Duration
		site    time.Duration // limit of the site
		broker  time.Duration // limit of the broker
		stays   float64       // seconds after which it is there
		is      float64       // seconds after which it is gone; 0: never
		visible time.Duration
	}{
		{name: "MsgFlo's limit", stays: 599.9, is: 600, visible: 600 * time.Second},
		{name: "the site's limit", site: 90 * time.Second, stays: 89.9, is: 90, visible: 90 * time.Second},
		{name: "the broker's limit", site: 90 * time.Second, broker: time.Hour, stays: 3599.9, is: 3600, visible: time.Hour},
		{name: "no limit", broker: -1, stays: 1e9},
		{name: "a heartbeat", heart: 20 * time.Second, broker: -1, stays: 59.9, is: 60, visible: time.Minute},
		{name: "a fast heartbeat", heart: time.Second, stays: 9.9, is: 10, visible: 10 * time.Second},
		{name: "a slow heartbeat", heart: 24 * time.Hour, stays: 3*86400 - 0.1, is: 3 * 86400, visible: 72 * time.Hour},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := discovery.NewRegistry(discovery.Config{Limit: tt.site})
			r.SetLimit(hall.Broker, tt.broker)
			def := define("a1", "a", beat(tt.heart))
			say(t, r, hall, def, at(-100))
			say(t, r, hall, def, at(0))
			if got := r.Snapshot()[0].On[0].Limit; got != tt.visible {
				t.Errorf("limit %v; want %v", got, tt.visible)
			}
			expect(t, "not yet gone", words(r.Expire(at(tt.stays))), "")
			if tt.is > 0 {
				expect(t, "gone", words(r.Expire(at(tt.is))), "a1 left as a#1")
				expect(t, "gone once", words(r.Expire(at(tt.is))), "")
			}
		})
	}
}

func TestComingBackIsANewIncarnation(t *testing.T) {
	r := discovery.NewRegistry(discovery.Config{})
	def := define("a1", "a")
	say(t, r, hall, def, at(0))
	expect(t, "after silence", words(r.Expire(at(600))), "a1 left as a#1")
	expect(t, "same id", say(t, r, hall, def, at(601)), "a1 appeared as a#2")
	expect(t, "another id", say(t, r, hall, define("a2", "a"), at(602)), "a2 appeared as a#3")
	expect(t, "removed", words(r.Remove("a1")), "a1 left as a#2")
	expect(t, "after removal", say(t, r, hall, def, at(603)), "a1 appeared as a#4")
}

func TestNobodyIsGoneBecauseWeWereDeaf(t *testing.T) {
	r := discovery.NewRegistry(discovery.Config{})
	r.Listening(hall, true, at(0))
	say(t, r, hall, define("a1", "a", beat(20*time.Second)), at(0))
	say(t, r, cloud, define("b1", "b", beat(20*time.Second)), at(0))
	r.Listening(hall, false, at(30))
	expect(t, "other brokers", words(r.Expire(at(3600))), "b1 left as b#2")
	r.Listening(hall, true, at(5000))
	expect(t, "time to be heard", words(r.Expire(at(5059))), "")
	expect(t, "really gone", words(r.Expire(at(5060))), "a1 left as a#1")
}

func TestWhoIsHeardElsewhereIsGoneInItsTime(t *testing.T) {
	r := discovery.NewRegistry(discovery.Config{})
	r.Listening(hall, false, at(0))
	say(t, r, hall, define("a1", "a"), at(0))
	expect(t, "nobody listens", words(r.Expire(at(1000))), "")
	say(t, r, discovery.Place{Broker: hall.Broker, Address: "msgflo/discover"}, define("a1", "a"), at(1001))
	expect(t, "somebody listens elsewhere", words(r.Expire(at(1601))), "a1 left as a#1")
}

func TestRegistryIsBounded(t *testing.T) {
	r := discovery.NewRegistry(discovery.Config{Max: 3})
	for i := range 5 {
		_, err := r.Take(hall, announcement(t, define(fmt.Sprint("a", i), "a")), at(0))
		if (i >= 3) != errors.Is(err, discovery.ErrFull) {
			t.Errorf("participant %d: %v", i, err)
		}
	}
	expect(t, "who was there can change", say(t, r, hall, define("a0", "a", queue("x")), at(1)), "a0 changed as a#1")
	if got := r.Counts()[hall.Broker]; got.Dropped != 2 || len(r.Snapshot()) != 3 {
		t.Errorf("%+v, %d participants", got, len(r.Snapshot()))
	}
	r.Remove("a1")
	expect(t, "there is room again", say(t, r, hall, define("a4", "a"), at(2)), "a4 appeared as a#4")
}

func TestMemoryOfDefinitionsIsBounded(t *testing.T) {
	large := func(id string) discovery.Definition {
		def := define(id, "a")
		for i := range 500 {
			def.Outports = append(def.Outports, discovery.Port{ID: fmt.Sprint(i), Type: "any"})
		}
		return def
	}
	r := discovery.NewRegistry(discovery.Config{MaxBytes: 8 << 20})
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	for i := range 400 {
		// Ports without much in them cost the most for their bytes on the wire.
		if _, err := r.Take(hall, announcement(t, large(fmt.Sprint(i))), at(0)); err != nil && !errors.Is(err, discovery.ErrFull) {
			t.Fatal(err)
		}
	}
	used := heap() - before
	if r.Counts()[hall.Broker].Dropped == 0 {
		t.Errorf("nothing was dropped of %d", len(r.Snapshot()))
	}
	if used > 12<<20 {
		t.Errorf("%d bytes are used; the bound is 8 MiB", used)
	}
	if _, err := r.Take(hall, announcement(t, define("0", "a")), at(1)); err != nil {
		t.Errorf("making itself smaller: %v", err)
	}
	r.RemoveBroker(hall.Broker)
	for i := range 10 {
		if _, err := r.Take(hall, announcement(t, large(fmt.Sprint(i))), at(2)); err != nil {
			t.Errorf("after everybody is gone: %v", err)
		}
	}
	runtime.KeepAlive(r)
}

// TestRegistryModel: whatever happens, the changes tell the whole story (who follows them knows who is there), incarnations
// are never used twice, and a plain model agrees about who is there.
func TestRegistryModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const most = 5
		r := discovery.NewRegistry(discovery.Config{Max: most})
		now := 0.0
		follower := make(map[uint64]discovery.Participant)
		var newest uint64
		follow := func(changes []discovery.Change) {
			for _, c := range changes {
				n := c.Participant.Incarnation
				_, known := follower[n]
				switch c.Kind {
				case discovery.Appeared:
					if n <= newest {
						t.Fatalf("incarnation %d after %d", n, newest)
					}
					newest = n
					follower[n] = c.Participant
				case discovery.Changed:
					if !known {
						t.Fatalf("%d changed and was not there", n)
					}
					follower[n] = c.Participant
				case discovery.Left:
					if !known {
						t.Fatalf("%d left and was not there", n)
					}
					delete(follower, n)
				}
			}
		}
		type seat struct{ broker, id string }
		type guest struct {
			role, queue string
			heart       time.Duration
			last        float64
			place       discovery.Place
		}
		model := make(map[seat]guest)
		deaf := make(map[discovery.Place]bool)
		since := make(map[discovery.Place]float64)
		limit := func(g guest) float64 {
			if g.heart > 0 {
				return max(3*g.heart.Seconds(), 10)
			}
			return 600
		}
		places := []discovery.Place{hall, {Broker: hall.Broker, Address: "msgflo/discover"}, cloud}
		t.Repeat(map[string]func(*rapid.T){
			"announce": func(t *rapid.T) {
				place := rapid.SampledFrom(places).Draw(t, "place")
				s := seat{place.Broker, rapid.SampledFrom([]string{"1", "2", "3"}).Draw(t, "id")}
				g := guest{
					role:  rapid.SampledFrom([]string{"a", "b"}).Draw(t, "role"),
					queue: rapid.SampledFrom([]string{"x", "y"}).Draw(t, "queue"),
					heart: rapid.SampledFrom([]time.Duration{0, time.Second}).Draw(t, "heartbeat"),
					last:  now,
					place: place,
				}
				def := define(s.id, g.role, queue(g.queue), beat(g.heart))
				var changes []discovery.Change
				var err error
				if rapid.Bool().Draw(t, "parsed") {
					changes, err = r.Seen(place, def, at(now))
				} else {
					var body []byte
					if body, err = def.Marshal(); err != nil {
						t.Fatal(err)
					}
					changes, err = r.Take(place, body, at(now))
				}
				follow(changes)
				if _, old := model[s]; !old && len(model) == most {
					if !errors.Is(err, discovery.ErrFull) {
						t.Fatalf("one too many: %v", err)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				model[s] = g
			},
			"nonsense": func(t *rapid.T) {
				if changes, err := r.Take(hall, []byte(`{"id":1}`), at(now)); err == nil || changes != nil {
					t.Fatalf("%v, %v", changes, err)
				}
			},
			"wait": func(t *rapid.T) {
				now += rapid.SampledFrom([]float64{1, 5, 10, 100, 700}).Draw(t, "seconds")
			},
			"expire": func(*rapid.T) {
				follow(r.Expire(at(now)))
				maps.DeleteFunc(model, func(_ seat, g guest) bool {
					return !deaf[g.place] && now-max(g.last, since[g.place]) >= limit(g)
				})
			},
			"listen": func(t *rapid.T) {
				place := rapid.SampledFrom(places).Draw(t, "place")
				deaf[place] = rapid.Bool().Draw(t, "deaf")
				since[place] = now
				r.Listening(place, !deaf[place], at(now))
			},
			"remove": func(t *rapid.T) {
				id := rapid.SampledFrom([]string{"1", "2", "9"}).Draw(t, "id")
				follow(r.Remove(id))
				maps.DeleteFunc(model, func(s seat, _ guest) bool { return s.id == id })
			},
			"remove broker": func(t *rapid.T) {
				if rapid.IntRange(0, 5).Draw(t, "whether") > 0 {
					return
				}
				follow(r.RemoveBroker(cloud.Broker))
				maps.DeleteFunc(model, func(s seat, _ guest) bool { return s.broker == cloud.Broker })
				deaf[cloud], since[cloud] = false, 0
			},
			"": func(t *rapid.T) {
				snapshot := r.Snapshot()
				shown := make(map[seat]guest)
				for _, p := range snapshot {
					if len(p.On) == 0 || !cmp.Equal(p.Definition, p.On[0].Definition) {
						t.Fatalf("not as on its first broker: %+v", p)
					}
					for _, q := range p.On {
						d := q.Definition
						s := seat{q.Broker, d.ID}
						if d.ID != p.Definition.ID || d.Role != p.Definition.Role || q.Last.After(p.Last) || q.First.Before(p.First) {
							t.Fatalf("does not fit together: %+v", p)
						}
						shown[s] = guest{d.Role, d.Inports[0].Queue, d.Heartbeat, q.Last.Sub(epoch).Seconds(), q.Place}
					}
				}
				if !maps.Equal(model, shown) {
					t.Fatalf("there: %v\n want: %v", shown, model)
				}
				followed := slices.SortedFunc(maps.Values(follower), func(p, q discovery.Participant) int {
					return strings.Compare(p.Definition.Role, q.Definition.Role)*1000 + int(p.Incarnation) - int(q.Incarnation)
				})
				heard := cmpopts.IgnoreFields(discovery.Participant{}, "Last")
				where := cmpopts.IgnoreFields(discovery.Presence{}, "Last", "Place.Address")
				if diff := cmp.Diff(snapshot, followed, heard, where, cmpopts.EquateEmpty()); diff != "" {
					t.Fatalf("who follows the changes knows something else (-there +followed):\n%s", diff)
				}
			},
		})
	})
}

// What a flood costs: each of these times 10,000 is a second's.

func BenchmarkRepeated(b *testing.B) {
	r := discovery.NewRegistry(discovery.Config{})
	body := messages(b)["msgflo-nodejs-repeat"]
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Take(hall, body, epoch); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMalformed(b *testing.B) {
	r := discovery.NewRegistry(discovery.Config{})
	full := messages(b)["msgflo-nodejs-repeat"]
	for name, body := range map[string][]byte{
		"half":    full[:len(full)/2],
		"keyless": []byte(strings.Replace(string(full), `"id":"out"`, `"no":"out"`, 1)),
		"huge":    []byte(`{"id":"` + strings.Repeat("x", discovery.MaxBody-10) + `"}`),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := r.Take(hall, body, epoch); err == nil {
					b.Fatal("taken")
				}
			}
		})
	}
}

func BenchmarkChanged(b *testing.B) {
	r := discovery.NewRegistry(discovery.Config{})
	bodies := [][]byte{announcement(b, define("a1", "a")), announcement(b, define("a1", "a", queue("x")))}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := r.Take(hall, bodies[i%2], epoch); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkExpire(b *testing.B) {
	r := discovery.NewRegistry(discovery.Config{})
	for i := range 10_000 {
		if _, err := r.Seen(hall, define(fmt.Sprint(i), "a"), epoch); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		if r.Expire(at(1)) != nil {
			b.Fatal("gone")
		}
	}
}
