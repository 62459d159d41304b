// Package export_wasmhook_plugin_resolve sends an event to the endpoint that a field of its payload
// names.
//
// Configuration: `field`, the path of the field (`customer.region`); `map.VALUE`, the endpoint for one
// value of it, which is itself the endpoint's id where there is no such entry; `default`, the endpoint
// where the field is absent. Without `field`, or when there is nothing to choose by, an event goes to
// the endpoints that subscribe to it.
package export_wasmhook_plugin_resolve

import (
	"encoding/json"
	"strings"

	"go.bytecodealliance.org/pkg/wit/types"
	"wit_component/collect"
	"wit_component/wasmhook_plugin_config"
	. "wit_component/wasmhook_plugin_resolve"
)

// Resolve chooses the receivers of one event.
func Resolve(event Event, _ []Endpoint) wit_types.Result[Resolution, Failure] {
	collect.Garbage()
	field := wasmhook_plugin_config.Get("field")
	if field.IsNone() {
		return answer(Resolution{Mode: Mode_Add})
	}
	var payload any
	if err := json.Unmarshal(event.Payload, &payload); err != nil {
		return wit_types.Err[Resolution](Failure{Message: "the payload is not JSON"})
	}
	chosen := wasmhook_plugin_config.Get("default")
	if value, found := find(payload, strings.Split(field.Some(), ".")); found {
		chosen = wit_types.Some(wasmhook_plugin_config.Get("map." + value).SomeOr(value))
	}
	if chosen.IsNone() {
		return answer(Resolution{Mode: Mode_Add})
	}
	return answer(Resolution{
		Mode:    Mode_Replace,
		Choices: []Choice{MakeChoiceRegistered(chosen.Some())},
	})
}

// find gives the text at a path into the payload.
func find(payload any, path []string) (string, bool) {
	for _, part := range path {
		object, _ := payload.(map[string]any)
		payload = object[part]
	}
	text, found := payload.(string)
	return text, found
}

func answer(resolution Resolution) wit_types.Result[Resolution, Failure] {
	return wit_types.Ok[Resolution, Failure](resolution)
}
