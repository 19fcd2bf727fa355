// Package environ makes a container's environment variables and expands
// $(NAME) references in its command.
//
// It reads config maps, secrets and services through small interfaces and
// returns the variables in the order the kubelet would: service variables fill
// in what nothing else sets, env wins over envFrom.
package environ
