// Package reconcile is the skeleton every controller stands on: informers feed
// keys into a Queue, workers take a key and call one function which compares
// what is wanted with what is there and closes the gap.
//
// A controller is a folder with a constructor, handlers that turn events into
// keys, and one reconcile function. It gives its sources and queues to Run,
// which registers the handlers, waits until the informers know everything, lets
// the workers work, and takes everything down again when its context ends.
// Failed keys come back with exponential delay; nothing else is ever repeated
// on a timer.
//
// The package knows nothing of any kind of object.
package reconcile
