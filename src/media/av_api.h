/* av_api.h - libav's functions, loaded when the first video or compressed sound comes.
 *
 * Linked in the usual way, FFmpeg's 130 libraries cost every start of the program some 30 ms, also of programs that never see a
 * video. So only its headers are used at build time: the functions in the table are looked up at run time, and the names that
 * the code calls them by are macros for the table's entries. */
#ifndef VLM_MEDIA_AV_API_H
#define VLM_MEDIA_AV_API_H

#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/pixdesc.h>
#include <libswscale/swscale.h>

#include "base/err.h"

/* X(library, function) */
#define AV_API_TABLE(X)                                                                                                    \
    X(avutil, av_malloc) X(avutil, av_free) X(avutil, av_freep) X(avutil, av_max_alloc) X(avutil, av_log_set_level)          \
    X(avutil, av_strerror) X(avutil, av_dict_set) X(avutil, av_dict_set_int) X(avutil, av_dict_free)                        \
    X(avutil, av_frame_alloc) X(avutil, av_frame_free) X(avutil, av_frame_unref)                                            \
    X(avutil, av_get_media_type_string) X(avutil, av_get_pix_fmt_name) X(avutil, av_sample_fmt_is_planar)                   \
    X(avutil, av_get_packed_sample_fmt)                                                                                     \
    X(avcodec, avcodec_alloc_context3) X(avcodec, avcodec_free_context) X(avcodec, avcodec_parameters_to_context)           \
    X(avcodec, avcodec_open2) X(avcodec, avcodec_send_packet) X(avcodec, avcodec_receive_frame)                             \
    X(avcodec, avcodec_flush_buffers) X(avcodec, avcodec_find_decoder) X(avcodec, avcodec_get_name)                         \
    X(avcodec, av_packet_alloc) X(avcodec, av_packet_free) X(avcodec, av_packet_unref) X(avcodec, av_packet_move_ref)       \
    X(avcodec, av_new_packet)                                                                                               \
    X(avformat, avformat_alloc_context) X(avformat, avformat_open_input) X(avformat, avformat_find_stream_info)             \
    X(avformat, avformat_close_input) X(avformat, av_find_best_stream) X(avformat, av_read_frame)                           \
    X(avformat, avio_alloc_context) X(avformat, avio_context_free) X(avformat, av_stream_get_side_data)                     \
    X(swscale, sws_getCachedContext) X(swscale, sws_scale) X(swscale, sws_setColorspaceDetails)                             \
    X(swscale, sws_getCoefficients) X(swscale, sws_freeContext)

struct av_api {
#define X(library, name) __typeof__(&name) name;
    AV_API_TABLE(X)
#undef X
};
extern struct av_api av_api;

/* Loads the libraries, once. False with a message when they are missing; then nothing of the table may be called. Any thread. */
bool av_load(vlm_error *error);

#ifndef AV_API_TABLE_ONLY
#define av_malloc av_api.av_malloc
#define av_free av_api.av_free
#define av_freep av_api.av_freep
#define av_strerror av_api.av_strerror
#define av_dict_set av_api.av_dict_set
#define av_dict_set_int av_api.av_dict_set_int
#define av_dict_free av_api.av_dict_free
#define av_frame_alloc av_api.av_frame_alloc
#define av_frame_free av_api.av_frame_free
#define av_frame_unref av_api.av_frame_unref
#define av_get_media_type_string av_api.av_get_media_type_string
#define av_get_pix_fmt_name av_api.av_get_pix_fmt_name
#define av_sample_fmt_is_planar av_api.av_sample_fmt_is_planar
#define av_get_packed_sample_fmt av_api.av_get_packed_sample_fmt
#define avcodec_alloc_context3 av_api.avcodec_alloc_context3
#define avcodec_free_context av_api.avcodec_free_context
#define avcodec_parameters_to_context av_api.avcodec_parameters_to_context
#define avcodec_open2 av_api.avcodec_open2
#define avcodec_send_packet av_api.avcodec_send_packet
#define avcodec_receive_frame av_api.avcodec_receive_frame
#define avcodec_flush_buffers av_api.avcodec_flush_buffers
#define avcodec_find_decoder av_api.avcodec_find_decoder
#define avcodec_get_name av_api.avcodec_get_name
#define av_packet_alloc av_api.av_packet_alloc
#define av_packet_free av_api.av_packet_free
#define av_packet_unref av_api.av_packet_unref
#define av_packet_move_ref av_api.av_packet_move_ref
#define av_new_packet av_api.av_new_packet
#define avformat_alloc_context av_api.avformat_alloc_context
#define avformat_open_input av_api.avformat_open_input
#define avformat_find_stream_info av_api.avformat_find_stream_info
#define avformat_close_input av_api.avformat_close_input
#define av_find_best_stream av_api.av_find_best_stream
#define av_read_frame av_api.av_read_frame
#define avio_alloc_context av_api.avio_alloc_context
#define avio_context_free av_api.avio_context_free
#define av_stream_get_side_data av_api.av_stream_get_side_data
#define sws_getCachedContext av_api.sws_getCachedContext
#define sws_scale av_api.sws_scale
#define sws_setColorspaceDetails av_api.sws_setColorspaceDetails
#define sws_getCoefficients av_api.sws_getCoefficients
#define sws_freeContext av_api.sws_freeContext
#endif

#endif
