package eviction

import (
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Signals besides those that thresholds are set for.
const (
	memoryAvailable = "memory.available"
	// allocatableMemory is the memory left of what the pods may use together.
	allocatableMemory = "allocatableMemory.available"
	nodefsAvailable   = "nodefs.available"
	nodefsInodes      = "nodefs.inodesFree"
	imagefsAvailable  = "imagefs.available"
	imagefsInodes     = "imagefs.inodesFree"
	pidAvailable      = "pid.available"
)

// Resources that only eviction counts.
const (
	resourceInodes v1.ResourceName = "inodes"
	resourcePids   v1.ResourceName = "pids"
)

// Observation is how much of something there is, and how much of it is left.
type Observation struct {
	Available, Capacity int64
	Format              resource.Format
}

func (o Observation) available() *resource.Quantity {
	return resource.NewQuantity(o.Available, o.Format)
}

// Observations by signal. A signal that could not be read is missing.
type Observations map[string]Observation

// resourceOf is what a signal is about.
func resourceOf(signal string) v1.ResourceName {
	switch signal {
	case memoryAvailable, allocatableMemory:
		return v1.ResourceMemory
	case nodefsInodes, imagefsInodes:
		return resourceInodes
	case pidAvailable:
		return resourcePids
	}
	return v1.ResourceEphemeralStorage
}

// conditionOf is the node condition that tells of a signal.
func conditionOf(signal string) v1.NodeConditionType {
	switch signal {
	case memoryAvailable, allocatableMemory:
		return v1.NodeMemoryPressure
	case pidAvailable:
		return v1.NodePIDPressure
	}
	return v1.NodeDiskPressure
}
