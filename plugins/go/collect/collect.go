// Package collect runs Go's garbage collector within calls only.
//
// Before a call the host has its arguments copied into the component, which may not call anything
// outside itself meanwhile. A collection that begins there asks for the time, and the call fails.
package collect

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// Well below the 64 MiB that a plugin may use, and seldom reached.
const enough = 16 << 20

var heap = []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}

func init() {
	debug.SetGCPercent(-1)
}

// Garbage collects when enough memory is in use. Every exported function begins with it.
func Garbage() {
	metrics.Read(heap)
	if heap[0].Value.Uint64() > enough {
		runtime.GC()
	}
}
