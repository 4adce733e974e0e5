package plugin

import "time"

// Option changes a Config in a way that only tests may.
type Option = func(*Config)

// WithHealth has processes asked more often.
func WithHealth(every, deadline time.Duration) Option {
	return func(c *Config) { c.health = healthPolicy{every: every, deadline: deadline} }
}

// WithRestarts has processes restarted sooner.
func WithRestarts(shortest, longest time.Duration) Option {
	return func(c *Config) { c.restart.Min, c.restart.Max = shortest, longest }
}
