// Flogate-transport-file is a plugin for flogate: a folder is the broker, and each file in it a queue of lines.
package main

import (
	"os"

	"github.com/flogate/flogate/core/pluginmain"

	"github.com/flogate/flogate/examples/transport-file/filetransport"
)

func main() { os.Exit(pluginmain.Serve(filetransport.New)) }
