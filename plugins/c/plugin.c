// Blanks the fields that the configuration names and adds "schema_version". The payload is copied
// as it is read, so everything else in it stays byte for byte as it was.
//
// Configuration: `fields`, names separated by commas, blanked at any depth; `schema_version`, "1" if
// absent.

#include <stdlib.h>
#include <string.h>

#include "transformer.h"

typedef transformer_string_t string;

// What stands in place of a blanked value.
static const char BLANK[] = "\"[redacted]\"";
static const char VERSION[] = "schema_version";

// Objects and arrays inside each other; each takes a frame of the stack.
enum { DEPTH = 128 };

struct rewrite {
    const uint8_t *at, *end; // what is still to be read
    uint8_t *body;           // what is written
    size_t length, capacity;
    bool silent; // read without writing
    string fields, version;
};

static bool value(struct rewrite *r, int depth);

static void put(struct rewrite *r, const void *bytes, size_t length) {
    if (r->silent)
        return;
    if (r->capacity - r->length < length) {
        r->capacity = 2 * r->capacity + length;
        r->body = realloc(r->body, r->capacity);
        if (r->body == NULL)
            abort(); // over the memory limit: the host names it
    }
    memcpy(r->body + r->length, bytes, length);
    r->length += length;
}

static bool take(struct rewrite *r, char wanted) {
    if (r->at == r->end || *r->at != wanted)
        return false;
    put(r, r->at++, 1);
    return true;
}

// Copies as long as the byte is one of `set`; tells how many were.
static size_t run(struct rewrite *r, const char *set) {
    const uint8_t *from = r->at;
    while (r->at < r->end && *r->at != 0 && strchr(set, *r->at) != NULL)
        r->at++;
    put(r, from, r->at - from);
    return r->at - from;
}

static void space(struct rewrite *r) { run(r, " \t\n\r"); }

static bool word(struct rewrite *r, const char *word) {
    for (; *word != 0; word++)
        if (!take(r, *word))
            return false;
    return true;
}

// Reads the string that begins here, quotes included, without writing it.
static bool literal(struct rewrite *r, string *found) {
    const uint8_t *from = r->at;
    if (r->at == r->end || *r->at++ != '"')
        return false;
    while (r->at < r->end && *r->at != '"')
        r->at += *r->at == '\\' && r->end - r->at > 1 ? 2 : 1;
    if (r->at == r->end)
        return false;
    r->at++;
    *found = (string){(uint8_t *)from, r->at - from};
    return true;
}

static int hex(const uint8_t *digits) {
    char text[5] = {digits[0], digits[1], digits[2], digits[3], 0};
    return strtol(text, NULL, 16);
}

static size_t utf8(uint32_t c, uint8_t *to) {
    if (c < 0x80) {
        to[0] = c;
        return 1;
    }
    size_t more = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    static const uint8_t lead[] = {0, 0xc0, 0xe0, 0xf0};
    to[0] = lead[more] | c >> 6 * more;
    for (size_t n = 1; n <= more; n++)
        to[n] = 0x80 | (c >> 6 * (more - n) & 0x3f);
    return more + 1;
}

// The text of a string literal. A name may be written with escapes and is the same name.
static string decoded(string raw) {
    const uint8_t *at = raw.ptr + 1, *end = raw.ptr + raw.len - 1;
    string text = {malloc(raw.len), 0};
    if (text.ptr == NULL)
        abort();
    while (at < end) {
        if (*at != '\\') {
            text.ptr[text.len++] = *at++;
        } else if (at[1] != 'u' || end - at < 6) {
            static const char from[] = "bfnrt", to[] = "\b\f\n\r\t";
            const char *known = strchr(from, at[1]);
            text.ptr[text.len++] = known != NULL && *known != 0 ? to[known - from] : at[1];
            at += 2;
        } else {
            uint32_t c = hex(at + 2);
            at += 6;
            if (c >> 10 == 0x36 && end - at >= 6 && at[0] == '\\' && at[1] == 'u') {
                c = 0x10000 + ((c & 0x3ff) << 10) + (hex(at + 2) & 0x3ff);
                at += 6;
            }
            text.len += utf8(c, text.ptr + text.len);
        }
    }
    return text;
}

static bool equal(string a, const void *bytes, size_t length) {
    return a.len == length && memcmp(a.ptr, bytes, length) == 0;
}

// Whether `name` is one of the words, separated by commas, of `list`.
static bool listed(string list, string name) {
    const uint8_t *at = list.ptr, *end = list.ptr + list.len;
    while (at < end) {
        const uint8_t *comma = memchr(at, ',', end - at);
        const uint8_t *from = at, *to = comma != NULL ? comma : end;
        at = to + 1;
        while (from < to && *from == ' ')
            from++;
        while (from < to && to[-1] == ' ')
            to--;
        if (from < to && equal(name, from, to - from))
            return true;
    }
    return false;
}

static void put_version(struct rewrite *r) {
    put(r, "\"", 1);
    for (size_t n = 0; n < r->version.len; n++) {
        const uint8_t c = r->version.ptr[n];
        if (c == '"' || c == '\\')
            put(r, "\\", 1);
        if (c >= ' ')
            put(r, &c, 1);
    }
    put(r, "\"", 1);
}

// Reads a value and writes something else.
static bool instead(struct rewrite *r, int depth) {
    const bool silent = r->silent;
    r->silent = true;
    const bool good = value(r, depth);
    r->silent = silent;
    return good;
}

// One name with its value. `versioned` becomes true when it is the schema version.
static bool member(struct rewrite *r, int depth, bool *versioned) {
    string raw;
    if (!literal(r, &raw))
        return false;
    put(r, raw.ptr, raw.len);
    space(r);
    if (!take(r, ':'))
        return false;
    space(r);
    string name = decoded(raw);
    const bool is_version = depth == 1 && equal(name, VERSION, strlen(VERSION));
    const bool is_blanked = listed(r->fields, name);
    free(name.ptr);
    if (is_version) {
        *versioned = true;
        put_version(r);
        return instead(r, depth);
    }
    if (is_blanked) {
        put(r, BLANK, strlen(BLANK));
        return instead(r, depth);
    }
    return value(r, depth);
}

static bool object(struct rewrite *r, int depth) {
    bool versioned = depth > 1, empty = true;
    space(r);
    while (r->at < r->end && *r->at != '}') {
        if (!empty && !take(r, ','))
            return false;
        space(r);
        if (!member(r, depth, &versioned))
            return false;
        space(r);
        empty = false;
    }
    if (!versioned) {
        put(r, empty ? "\"" : ",\"", empty ? 1 : 2);
        put(r, VERSION, strlen(VERSION));
        put(r, "\":", 2);
        put_version(r);
    }
    return take(r, '}');
}

static bool array(struct rewrite *r, int depth) {
    bool empty = true;
    space(r);
    while (r->at < r->end && *r->at != ']') {
        if (!empty && !take(r, ','))
            return false;
        space(r);
        if (!value(r, depth))
            return false;
        space(r);
        empty = false;
    }
    return take(r, ']');
}

// Copies one value. False: it is not JSON, or too deep.
static bool value(struct rewrite *r, int depth) {
    if (r->at == r->end || depth == DEPTH)
        return false;
    string text;
    switch (*r->at) {
    case '{':
        return take(r, '{') && object(r, depth + 1);
    case '[':
        return take(r, '[') && array(r, depth + 1);
    case '"':
        if (!literal(r, &text))
            return false;
        put(r, text.ptr, text.len);
        return true;
    case 't':
        return word(r, "true");
    case 'f':
        return word(r, "false");
    case 'n':
        return word(r, "null");
    default:
        return run(r, "-+.0123456789eE") > 0;
    }
}

static bool setting(const char *name, string *found) {
    string key;
    transformer_string_set(&key, name);
    return wasmhook_plugin_config_get(&key, found);
}

bool exports_wasmhook_plugin_transform_transform(
    exports_wasmhook_plugin_transform_event_t *event,
    exports_wasmhook_plugin_transform_endpoint_t *endpoint,
    exports_wasmhook_plugin_transform_verdict_t *verdict,
    exports_wasmhook_plugin_transform_failure_t *failure) {
    struct rewrite r = {.at = event->payload.ptr, .end = event->payload.ptr + event->payload.len};
    if (!setting("fields", &r.fields))
        transformer_string_dup(&r.fields, "");
    if (!setting("schema_version", &r.version))
        transformer_string_dup(&r.version, "1");

    space(&r);
    bool good = value(&r, 0);
    space(&r);
    good = good && r.at == r.end;

    transformer_string_free(&r.fields);
    transformer_string_free(&r.version);
    exports_wasmhook_plugin_transform_event_free(event);
    exports_wasmhook_plugin_transform_endpoint_free(endpoint);
    if (!good) {
        free(r.body);
        failure->retryable = false;
        transformer_string_dup(&failure->message, "the payload is not JSON, or nested too deeply");
        return false;
    }
    verdict->tag = EXPORTS_WASMHOOK_PLUGIN_TRANSFORM_VERDICT_DELIVER;
    verdict->val.deliver = (exports_wasmhook_plugin_transform_request_t){
        .body = {r.body, r.length}, // freed, like every answer, by the bindings
    };
    return true;
}
