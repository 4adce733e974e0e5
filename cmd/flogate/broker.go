package main

import (
	"github.com/spf13/cobra"

	"github.com/flogate/flogate/core/embedded"
)

func (a *app) brokerCommand() *cobra.Command {
	var o embedded.Options
	cmd := &cobra.Command{
		Use:   "broker",
		Short: "Run a broker of our own: NATS with JetStream, and MQTT 3.1.1",
		Long: `Runs a NATS server with JetStream and an MQTT listener, on loopback, with its
data in one folder. When it is ready it prints one line of JSON that says where
it listens; when it cannot start, one that says why.

A site file with an 'embedded' block runs this as a child of the gateway.`,
		Example: `  flogate broker --data ./broker
  flogate broker --mqtt 127.0.0.1:1884 --nats 127.0.0.1:4223 --data ./other`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := a.logger()
			if err != nil {
				return err
			}
			return embedded.Serve(cmd.Context(), o, a.stdout, log)
		},
	}
	cmd.Flags().StringVar(&o.MQTT, "mqtt", "127.0.0.1:1883", "address of the MQTT listener; empty for none")
	cmd.Flags().StringVar(&o.NATS, "nats", "127.0.0.1:4222", "address of the NATS listener")
	cmd.Flags().StringVar(&o.DataDir, "data", "broker", "folder for what has to be kept")
	return cmd
}
