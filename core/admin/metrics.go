package admin

import "github.com/prometheus/client_golang/prometheus"

// collector makes metrics of a Status when it is asked, so that carrying a message never waits for a counter. Its labels
// come from the configuration alone: nothing that a peer sends can make a new series.
type collector struct {
	status func() Status
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("flogate_"+name, help, labels, nil)
}

// metrics are all descriptions, in one place for whoever writes an alert.
type metrics struct {
	info, reload                                                *prometheus.Desc
	messages, bytes, redelivered, dead, rejected                *prometheus.Desc
	inFlight, oldest, flowing, brokerUp, blocked, connects      *prometheus.Desc
	pluginUp, pluginRestarts, participantUp, participantRestart *prometheus.Desc
	roles, announcements, repeated, malformed, dropped          *prometheus.Desc
}

func describe() metrics {
	return metrics{
		info:   desc("info", "The gateway that runs; always 1.", "site", "version"),
		reload: desc("reload_failed", "1 while the last change of the site file was not taken over."),

		messages:    desc("edge_messages_total", "Messages that the sink has confirmed.", "edge"),
		bytes:       desc("edge_bytes_total", "Body bytes of the messages that the sink has confirmed.", "edge"),
		redelivered: desc("edge_redelivered_total", "Messages that were published again after a failure of the sink.", "edge"),
		dead:        desc("edge_dead_letters_total", "Messages that went to the dead letter.", "edge"),
		rejected:    desc("edge_rejected_total", "Messages that the sink refused and that had no dead letter.", "edge"),
		inFlight:    desc("edge_in_flight", "Messages received and not yet settled.", "edge"),
		oldest:      desc("edge_oldest_seconds", "Age of the oldest message in flight; 0 if there is none.", "edge"),
		flowing:     desc("edge_state", "1 for the state that the edge is in.", "edge", "state"),

		brokerUp: desc("broker_up", "1 while the broker is connected.", "broker"),
		blocked:  desc("broker_blocked", "1 while the broker takes no messages.", "broker"),
		connects: desc("broker_connects_total", "Connections made.", "broker"),

		pluginUp:       desc("plugin_up", "1 while the process answers.", "plugin"),
		pluginRestarts: desc("plugin_restarts_total", "Restarts of the process.", "plugin"),

		participantUp:      desc("participant_up", "1 while the participant that the gateway started runs.", "role"),
		participantRestart: desc("participant_restarts_total", "Restarts of the participant.", "role"),

		// Not by role: anybody may announce one.
		roles:         desc("participants", "Roles in a state.", "state"),
		announcements: desc("discovery_messages_total", "Announcements of participants.", "broker"),
		repeated:      desc("discovery_repeated_total", "Announcements that said what was known already.", "broker"),
		malformed:     desc("discovery_malformed_total", "Announcements that could not be read.", "broker"),
		dropped:       desc("discovery_dropped_total", "Announcements for which there was no room.", "broker"),
	}
}

// states are the words for the state of an edge.
func states() []string { return []string{"pending", "flowing", "blocked", "broken", "draining"} }

// Describe sends nothing: the series depend on the site, which may change.
func (collector) Describe(chan<- *prometheus.Desc) {}

// Collect sends what can be said now.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	m, s := describe(), c.status()
	send := func(d *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, kind, v, labels...)
	}
	counter := func(d *prometheus.Desc, v uint64, label string) { send(d, prometheus.CounterValue, float64(v), label) }
	gauge := func(d *prometheus.Desc, v float64, labels ...string) { send(d, prometheus.GaugeValue, v, labels...) }

	gauge(m.info, 1, s.Site, s.Version)
	gauge(m.reload, number(s.Reload != ""))
	for _, e := range s.Edges {
		counter(m.messages, e.Messages, e.ID)
		counter(m.bytes, e.Bytes, e.ID)
		counter(m.redelivered, e.Redelivered, e.ID)
		counter(m.dead, e.DeadLetters, e.ID)
		counter(m.rejected, e.Rejected, e.ID)
		gauge(m.inFlight, float64(e.InFlight), e.ID)
		gauge(m.oldest, e.OldestSeconds, e.ID)
		for _, state := range states() {
			gauge(m.flowing, number(e.State == state), e.ID, state)
		}
	}
	for _, b := range s.Brokers {
		gauge(m.brokerUp, number(b.State == "connected" || b.State == "blocked"), b.ID)
		gauge(m.blocked, number(b.State == "blocked"), b.ID)
		counter(m.connects, uint64(b.Connects), b.ID)
	}
	for _, p := range s.Plugins {
		gauge(m.pluginUp, number(p.Up), p.Name)
		counter(m.pluginRestarts, uint64(p.Restarts), p.Name)
	}
	roles := make(map[string]int)
	for _, p := range s.Participants {
		roles[p.State]++
		if p.Started {
			gauge(m.participantUp, number(p.PID != 0), p.Role)
			counter(m.participantRestart, uint64(p.Restarts), p.Role)
		}
	}
	for _, state := range []string{"present", "absent", "starting", "running", "failed"} {
		gauge(m.roles, float64(roles[state]), state)
	}
	for _, d := range s.Discovery {
		counter(m.announcements, d.Messages, d.Broker)
		counter(m.repeated, d.Repeated, d.Broker)
		counter(m.malformed, d.Malformed, d.Broker)
		counter(m.dropped, d.Dropped, d.Broker)
	}
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
