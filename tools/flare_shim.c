/* Separates the user interface from the world in one frame of Flare.
 *
 * Flare's software renderer composes a frame with blits and fills on one surface and
 * hands its pixels to SDL_UpdateTexture. This library is preloaded, so those calls come
 * here first. When the file named by $FLARE_SHIM_TRIGGER appears, its first line is a
 * path prefix, and the next frame is watched: the first drawing call with a Menu
 * function on its call stack begins the user interface, and all that follows belongs to
 * it. Each such call is made three times: on the real surface, on a black one and on a
 * white one. What the two still differ by afterwards is how much of the world shines
 * through: alpha = 255 - (white - black).
 *
 * Written: PREFIX_world.ppm, _image.ppm, _black.ppm, _white.ppm, _widgets.pgm and
 * _widgets.txt (number and name of each widget; written last). */
#define _GNU_SOURCE
#include <SDL2/SDL.h>
#include <dlfcn.h>
#include <execinfo.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_WIDGETS = 64, NAME_LENGTH = 128, STACK_DEPTH = 24, PATH_LENGTH = 512 };

/* The real function behind one of ours, looked up once. */
#define REAL(name)                                                                     \
    static __typeof__(&name) real_##name;                                              \
    if (!real_##name) real_##name = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

/* A shadow is a surface that only user interface is drawn on. `before` holds its pixels
 * before the latest call, to tell which ones that call changed. */
typedef struct {
    SDL_Surface *surface;
    Uint32 *before;
} Shadow;

static char prefix[PATH_LENGTH];
static const void *frame_pixels; /* what SDL_UpdateTexture was last given */
static int watching, interface_begun, manager_begun, latest_widget, num_overlays;
static int width, height;
static Uint32 *world;
static Shadow black, white;
static unsigned char *widgets;
static char names[MAX_WIDGETS][NAME_LENGTH];
static int num_names;

static int widget_number(const char *name) {
    for (int i = 0; i < num_names; i++)
        if (!strcmp(name, names[i])) return i + 1;
    if (num_names == MAX_WIDGETS) return MAX_WIDGETS;
    snprintf(names[num_names], NAME_LENGTH, "%s", name);
    return ++num_names;
}

/* The widget on whose behalf we are called, or 0 for the world. The minimap draws its
 * button by a tail call, which leaves no menu on the stack: such a call belongs to the
 * latest widget. After MenuManager come tooltips and at last the cursor, a call each. */
static int calling_widget(void) {
    void *stack[STACK_DEPTH];
    int depth = backtrace(stack, STACK_DEPTH);
    const char *menu = NULL;
    for (int i = 2; i < depth; i++) {
        Dl_info caller;
        if (!dladdr(stack[i], &caller) || !caller.dli_sname) continue;
        if (!strncmp(caller.dli_sname, "_ZN11MenuManager", 16)) {
            manager_begun = 1;
            return widget_number(menu ? menu : "MenuManager");
        }
        if (strstr(caller.dli_sname, "Menu")) menu = caller.dli_sname;
    }
    if (menu) return latest_widget = widget_number(menu);
    if (!manager_begun) return latest_widget;
    char overlay[NAME_LENGTH];
    snprintf(overlay, sizeof overlay, "overlay_%02d", ++num_overlays);
    return widget_number(overlay);
}

static void copy_pixels(Uint32 *to, const SDL_Surface *from) {
    for (int y = 0; y < height; y++)
        memcpy(to + y * width, (char *)from->pixels + y * from->pitch, width * 4);
}

static Shadow new_shadow(const SDL_Surface *like, Uint8 grey) {
    REAL(SDL_FillRect);
    Shadow shadow;
    shadow.surface =
        SDL_CreateRGBSurfaceWithFormat(0, width, height, 32, like->format->format);
    real_SDL_FillRect(shadow.surface, NULL,
                      SDL_MapRGB(shadow.surface->format, grey, grey, grey));
    shadow.before = malloc((size_t)width * height * 4);
    copy_pixels(shadow.before, shadow.surface);
    return shadow;
}

static void free_shadow(Shadow *shadow) {
    SDL_FreeSurface(shadow->surface);
    free(shadow->before);
}

/* Called at the first drawing call of the interface: the surface is still pure world. */
static void begin_interface(const SDL_Surface *surface) {
    interface_begun = 1;
    width = surface->w;
    height = surface->h;
    world = malloc((size_t)width * height * 4);
    copy_pixels(world, surface);
    widgets = calloc((size_t)width * height, 1);
    black = new_shadow(surface, 0);
    white = new_shadow(surface, 255);
}

/* Gives the pixels that the latest call changed to its widget. */
static void label_changes(Shadow *shadow, int widget) {
    for (int y = 0; y < height; y++) {
        Uint32 *now = (Uint32 *)((char *)shadow->surface->pixels +
                                 y * shadow->surface->pitch);
        Uint32 *before = shadow->before + y * width;
        if (!memcmp(now, before, width * 4)) continue;
        for (int x = 0; x < width; x++)
            if (now[x] != before[x]) widgets[y * width + x] = widget;
        memcpy(before, now, width * 4);
    }
}

/* The widget to repeat this call for on both shadows, or 0 to leave it alone. */
static int widget_to_repeat(const SDL_Surface *surface) {
    if (!watching || surface->pixels != frame_pixels) return 0;
    int widget = calling_widget();
    if (widget && !interface_begun) begin_interface(surface);
    return widget;
}

static void label_both(int widget) {
    label_changes(&black, widget);
    label_changes(&white, widget);
}

/* A blit clips the rectangle it is given in place: each repetition gets its own copy. */
#define REPEAT_BLIT(name)                                                              \
    int name(SDL_Surface *source, const SDL_Rect *from, SDL_Surface *surface,          \
             SDL_Rect *to) {                                                           \
        REAL(name);                                                                    \
        int widget = widget_to_repeat(surface);                                        \
        if (widget) {                                                                  \
            SDL_Rect on_black = to ? *to : (SDL_Rect){0}, on_white = on_black;         \
            real_##name(source, from, black.surface, to ? &on_black : NULL);           \
            real_##name(source, from, white.surface, to ? &on_white : NULL);           \
            label_both(widget);                                                        \
        }                                                                              \
        return real_##name(source, from, surface, to);                                 \
    }

REPEAT_BLIT(SDL_UpperBlit)
REPEAT_BLIT(SDL_UpperBlitScaled)

int SDL_FillRect(SDL_Surface *surface, const SDL_Rect *area, Uint32 colour) {
    REAL(SDL_FillRect);
    int widget = widget_to_repeat(surface);
    if (widget) {
        real_SDL_FillRect(black.surface, area, colour);
        real_SDL_FillRect(white.surface, area, colour);
        label_both(widget);
    }
    return real_SDL_FillRect(surface, area, colour);
}

static FILE *open_output(const char *name) {
    char path[PATH_LENGTH + 32];
    snprintf(path, sizeof path, "%s_%s", prefix, name);
    FILE *file = fopen(path, "wb");
    if (!file) {
        perror(path);
        exit(1);
    }
    return file;
}

static void write_colours(const char *name, const Uint32 *pixels, int stride,
                          const SDL_PixelFormat *format) {
    FILE *file = open_output(name);
    fprintf(file, "P6\n%d %d\n255\n", width, height);
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++) {
            Uint8 rgb[3];
            SDL_GetRGB(pixels[y * stride + x], format, rgb, rgb + 1, rgb + 2);
            fwrite(rgb, 1, 3, file);
        }
    fclose(file);
}

static void write_widgets(void) {
    FILE *file = open_output("widgets.pgm");
    fprintf(file, "P5\n%d %d\n255\n", width, height);
    fwrite(widgets, 1, (size_t)width * height, file);
    fclose(file);
    file = open_output("widgets.txt");
    for (int i = 0; i < num_names; i++) fprintf(file, "%d %s\n", i + 1, names[i]);
    fclose(file);
}

static void finish_frame(const void *pixels, int pitch) {
    const SDL_PixelFormat *format = black.surface->format;
    write_colours("world.ppm", world, width, format);
    write_colours("image.ppm", pixels, pitch / 4, format);
    write_colours("black.ppm", black.before, width, format);
    write_colours("white.ppm", white.before, width, format);
    write_widgets();
    free_shadow(&black);
    free_shadow(&white);
    free(world);
    free(widgets);
    unlink(getenv("FLARE_SHIM_TRIGGER"));
    watching = interface_begun = manager_begun = latest_widget = num_overlays = 0;
}

static void look_for_trigger(void) {
    const char *path = getenv("FLARE_SHIM_TRIGGER");
    FILE *file = path ? fopen(path, "r") : NULL;
    if (!file) return;
    if (fgets(prefix, sizeof prefix, file)) {
        prefix[strcspn(prefix, "\n")] = 0;
        watching = prefix[0] != 0;
    }
    fclose(file);
}

int SDL_UpdateTexture(SDL_Texture *texture, const SDL_Rect *area, const void *pixels,
                      int pitch) {
    REAL(SDL_UpdateTexture);
    frame_pixels = pixels;
    if (watching && interface_begun)
        finish_frame(pixels, pitch);
    else if (!watching)
        look_for_trigger();
    return real_SDL_UpdateTexture(texture, area, pixels, pitch);
}
