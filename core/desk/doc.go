// Package desk holds the graphs of a site as they are now, while people and programs edit them: it makes their changes,
// tells subscribers, keeps a log from which changes can be taken back, and writes the graphs to where they are kept.
//
// It is not for running graphs, and knows neither clients nor their protocol. Nothing in the gateway uses it yet: graphs
// come from the site file alone until the FBP protocol is there.
//
// # Where graphs are kept
//
//   - A graph with a file of its own is written back to that file, as [graph.Graph.FBP] and [graph.Graph.JSON] do: what the
//     user wrote there stays. What .fbp has no words for is kept beside it in the data folder; so is the whole graph, and
//     the file stays as it was, as long as there is a node or port whose name the language does not allow.
//   - A graph whose text stands in the site file is never written there. Edits to it are kept in the data folder, as a layer
//     over that text. [Snapshot.Kept] says so, for clients to say it too.
//   - A graph that was created while the gateway ran is a file of its own in the data folder.
//
// A file is replaced as a whole, a moment after a change: whoever is killed leaves the old one or the new one. Where that
// cannot be done (no space, no permission) edits go on, [Snapshot.Unsaved] says why, and it is tried again; what belongs
// into a file outside of the data folder is kept there meanwhile.
//
// # Two who write the same file
//
// A file that is not what the desk last read or wrote has been changed by somebody, and is read before it is written. Edits
// that it does not have are made to it one by one ([graph.Rebase]). Where one does not fit, the file is right, and the edit
// is in the log as lost: its changes can be made again from there. A file that is not valid is left alone until it is.
//
// # The log
//
// <data folder>/graphs.log has a line of JSON for each accepted change, see [Record]. A line is given to the operating system
// before the change is answered, and is on the disk before the graph is. So a gateway that is killed loses no edit: what the
// file lacks is made again from the log. A machine that loses its power may lose those of the last second. A log of 8 MiB
// becomes graphs.log.1, and the one before it goes. A torn line is skipped.
package desk
