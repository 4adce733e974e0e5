// Package brokers starts real message brokers for tests and benchmarks:
// mosquitto, RabbitMQ and nats-server, each on a free loopback port, with a
// folder of its own, without any service manager, and ended with the test.
//
//	house := brokers.Mosquitto(t)
//	work := brokers.RabbitMQ(t)          // shared server, fresh virtual host
//	bus := brokers.NATS(t, brokers.TLS(brokers.NewAuthority(t)))
//	...
//	house.Kill()                         // SIGKILL
//	house.Start()                        // same port, same data
//
// A broker also ends when the test program is killed. A program that is not
// installed fails the test with what to install: nothing here ever skips.
//
// RabbitMQ takes long to start, so one server is shared. The program in
// brokers/run starts it once around a whole `go test ./...`; without it, each
// test program starts one when it first needs it. Tests that restart, kill,
// freeze or alarm their RabbitMQ use [OwnRabbitMQ].
//
// This package is for tests; nothing that ships may import it.
package brokers
