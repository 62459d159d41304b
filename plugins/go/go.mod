module wit_component

go 1.27.1

require go.bytecodealliance.org/pkg v0.4.0

// The bindings' generator brings it.
replace go.bytecodealliance.org/pkg => ./pkg
