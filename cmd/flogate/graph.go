package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/flogate/flogate/core/graph"
)

func (a *app) graphCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "graph",
		Short: "Work with graph files",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.graphConvertCommand())
	return cmd
}

func (a *app) graphConvertCommand() *cobra.Command {
	var to, output string
	cmd := &cobra.Command{
		Use:   "convert FILE",
		Short: "Convert a graph between .fbp and FBP JSON",
		Long: `Reads a graph and writes it in the other format, or in the one that --to names.
FILE may be - for standard input, which is read as JSON if it begins with a brace.
What the .fbp language has no words for is named on standard error.`,
		Example: `  flogate graph convert motorcontrol.fbp
  flogate graph convert motorcontrol.json --output motorcontrol.fbp`,
		Args: exactArgs("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			name := args[0]
			src, err := a.read(name)
			if err != nil {
				return err
			}
			if name == "-" {
				name = "stdin.fbp"
				if len(src) > 0 && src[0] == '{' {
					name = "stdin.json"
				}
			}
			g, err := graph.Parse(name, src)
			if err != nil {
				return &exitError{exitConfig, err}
			}
			if to == "" {
				to = map[bool]string{true: "fbp", false: "json"}[filepath.Ext(name) == ".json"]
			}
			var out []byte
			switch to {
			case "json":
				out, err = g.JSON()
			case "fbp":
				for _, lost := range g.LostInFBP() {
					fmt.Fprintf(a.stderr, "flogate: not kept in .fbp: %s\n", lost)
				}
				out, err = g.FBP()
			default:
				return usagef("--to is %q: it is fbp or json", to)
			}
			if err != nil {
				return err
			}
			if output != "" {
				return os.WriteFile(output, out, 0o644)
			}
			_, err = a.stdout.Write(out)
			return err
		},
	}
	cmd.Flags().StringVar(&to, "to", "", "fbp or json (default: the other one)")
	_ = cmd.RegisterFlagCompletionFunc("to", words("fbp", "json")) // the flag exists
	cmd.Flags().StringVarP(&output, "output", "o", "", "write to this file")
	return cmd
}

// read reads a file, or standard input for "-", up to what a graph may be.
func (a *app) read(name string) ([]byte, error) {
	if name != "-" {
		return os.ReadFile(name)
	}
	return io.ReadAll(io.LimitReader(a.stdin, graph.MaxSize+1))
}
