// Package shutdown ends the pods of a node in order when the machine is about to
// stop: it delays logind's shutdown, as systemd's inhibitors allow, gives each
// group of priorities its time, and lets the shutdown go on.
//
// Signals of logind go in; verdicts over pods and the word that the node is ending
// come out. It knows no containers.
package shutdown
