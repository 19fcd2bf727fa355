// Package core holds the resources of the API's core group, one file each.
package core
