// Command bench compares flogate with a bridge that somebody has written by hand for one edge, side by side on the same
// brokers:
//
//	go run ./test/bench                      # everything: hours
//	go run ./test/bench -quick               # a few minutes
//	go run ./test/bench -edges mqtt1-amqp -sizes 1024 -rates saturated -rounds 1
//	go run ./test/bench -in results.json -markdown
//
// It starts the brokers, and for each cell of the table, one after another, each variant as a process of its own: flogate
// with plugin processes, flogate with isolation = "none", and this program again as the hand-written bridge, with the client
// libraries as they are and over core/coalesce. Load and checks are in this process, so that they are in nobody's CPU time.
//
// Latency counts from the time at which a message was to be sent, not from when it was: whoever makes the sender wait has
// that in his figures. At a fixed rate the sender does not wait for anything; saturated, it keeps a bounded number of
// messages on the way.
//
// On a machine with few cores load, brokers and bridge share them, and figures drift from minute to minute. Variants take
// turns within each round for that reason. Read ratios.
package main
